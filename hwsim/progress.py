"""Progress on stderr, of what takes longer than people wait without a word."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from math import inf
from threading import RLock, Timer
from time import monotonic
from typing import Any

PATIENCE_S = 2.0  # what takes longer shows its progress
PLAIN_S = 5.0  # between two lines of progress where there is no terminal


class Progress(AbstractContextManager["Progress"]):
    """How far one command has come: a bar on a terminal, elsewhere a line now and then.

    Also where the first part takes long, such as code that is compiled on its first use.
    """

    def __init__(self, what: str = "simulating") -> None:
        self._what = what
        self._next = monotonic() + PATIENCE_S
        self._bar: Any = None
        self._lock = RLock()
        self._timer = Timer(PATIENCE_S, self._begin)
        self._timer.daemon = True
        self._timer.start()

    def done(self, part: float, doing: str = "") -> None:
        """Show the ``part`` that is done, from 0 to 1, and what is being done."""
        text = f"{self._what} {doing}".strip()
        with self._lock:
            self._show(text, part)

    def _begin(self) -> None:
        with self._lock:
            if self._bar is None:
                self._show(self._what, 0.0)

    def _show(self, text: str, part: float) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=part, description=text)
        elif monotonic() >= self._next and part < 1:
            self._next = monotonic() + PLAIN_S
            if sys.stderr.isatty():
                self._start(text, part)
            else:
                print(f"hwsim: {text}, {part:.0%} done", file=sys.stderr, flush=True)

    def _start(self, text: str, part: float) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bar

        self._bar = Bar(console=Console(stderr=True), transient=True)
        self._bar.start()
        self._task = self._bar.add_task(text, total=1.0, completed=part)

    def __exit__(self, *failure: object) -> None:
        self._timer.cancel()
        with self._lock:
            self._next = inf
            if self._bar is not None:
                self._bar.stop()
