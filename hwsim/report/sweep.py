"""Along which size a study is drawn: the batch or the context, whichever takes more values."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor, log2
from typing import Any

import pandas as pd

from hwsim.report.frames import count_text

MAX_TICKS = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """``name`` is the swept size, ``other`` the one that a chart lets the reader choose, with its values."""

    name: str
    other: str
    others: tuple[int, ...]

    @property
    def title(self) -> str:
        """The axis with its unit."""
        return "Batch (sequences)" if self.name == "batch" else "Context (tokens)"

    def sizes(self, cases: pd.DataFrame) -> pd.Series:
        """The swept size of each case; a context ends with the generated tokens."""
        if self.name == "batch":
            return cases["batch"]
        return cases["prompt"] + cases["generate"].where(cases["phase"] == "generate", 0)

    def facts(self, size: float, other: int) -> dict[str, str]:
        """A place on the axis in words."""
        unit = "" if self.name == "batch" else " tokens"
        return {self.name: f"{count_text(round(size))}{unit}", self.other: count_text(other)}

    def ticks(self, low: float, high: float) -> dict[str, Any]:
        """A logarithmic axis from ``low`` to ``high`` with ticks at powers of two, as sizes are."""
        first, last = floor(log2(max(1.0, low))), ceil(log2(max(2.0, high)))
        step = max(1, ceil((last - first) / MAX_TICKS))
        values = [2**power for power in range(first, last + 1, step)]
        place = {"tickvals": values, "ticktext": [count_text(value) for value in values]}
        return {"type": "log", "title": {"text": self.title}, "tickmode": "array", **place}

    def short(self, size: float) -> str:
        """A size in two digits: 48k, 130."""
        for scale, suffix in ((2**20, "M"), (2**10, "k")):
            if size >= scale:
                return f"{size / scale:.2g}{suffix}" if size / scale < 100 else f"{size / scale:.0f}{suffix}"
        return f"{size:.0f}"


def axis_of(cases: pd.DataFrame) -> Axis:
    """The context, unless more batches than prompts were asked for."""
    by_batch = cases["batch"].nunique() > cases["prompt"].nunique()
    name, other = ("batch", "prompt") if by_batch else ("context", "batch")
    return Axis(name, other, tuple(sorted(int(value) for value in cases[other].unique())))
