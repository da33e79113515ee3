"""Commands run in this process, as `hwsim` on the command line would."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hwsim.cli import main

SMALL = """\
study: small
models: [llama-3.2-1b]
systems: [sn40l]
workload: {phase: decode}
matrix: {batch: [1, 2, 4], prompt: [128, 1k]}
"""


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON on stdout."""
        return json.loads(self.out)


@pytest.fixture
def hwsim(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run a command: `hwsim("list", "devices")`."""

    def ran(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return ran


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """The file of six decode cases of a small model."""
    path = tmp_path / "study.yaml"
    path.write_text(SMALL, "utf-8")
    return path
