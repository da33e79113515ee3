"""What a run tells while it goes on, for those who wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from time import monotonic
from typing import TypeAlias

Tell: TypeAlias = Callable[[str], None]
PATIENCE = 2.0
"""Seconds without a word."""


def silent(text: str) -> None:
    """Tell nobody."""


@contextmanager
def waiting(tell: Tell, text: str) -> Iterator[None]:
    """Tell ``text`` once, where what is done takes longer than anyone waits patiently."""
    timer = Timer(PATIENCE, tell, (text,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Steps:
    """Tells how far something is, at most every `PATIENCE` seconds."""

    def __init__(self, tell: Tell, what: str) -> None:
        self._tell, self._what, self._last = tell, what, monotonic()

    def at(self, done: int, total: int) -> None:
        """So much of ``total`` is done."""
        if done < total and monotonic() - self._last >= PATIENCE:
            self._last = monotonic()
            self._tell(f"{self._what}: {done} of {total}")
