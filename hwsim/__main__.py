"""`python -m hwsim`: the command line without its script."""

import sys

from hwsim.cli import main

sys.exit(main())
