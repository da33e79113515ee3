"""Kernels of one family that run in different ways: each way times its own, and one timing holds them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing

Places: TypeAlias = npt.NDArray[np.int64]
Rows: TypeAlias = "Places | slice"
Shape = TypeVar("Shape", bound=tuple[Any, ...])


def by_way(
    way: Array | Places, ways: Mapping[int, Callable[[Shape, Load, Chip], Timing]], x: Shape, load: Load, chip: Chip
) -> Timing:
    """The timing of kernels ``x``, each by the one of ``ways`` that ``way`` numbers."""
    if len(way) and (way == way[0]).all():
        return ways[int(way[0])](x, load, chip)
    present = [(rows, times) for number, times in ways.items() if len(rows := np.flatnonzero(way == number))]
    parts = [times(type(x)(*picked(x, rows)), Load(*picked(load, rows)), chip) for rows, times in present]
    return merged([rows for rows, _ in present], parts, len(way))


def picked(columns: Iterable[Array | float], rows: Rows) -> list[Any]:
    """The entries ``rows`` of every column."""
    return [column[rows] if isinstance(column, np.ndarray) else column for column in columns]


def merged(rows: Sequence[Rows], parts: Sequence[Timing], count: int) -> Timing:
    """One timing of ``count`` kernels from parts that stand in the given rows."""
    names = tuple(dict.fromkeys(name for part in parts for name in part.busy))
    table = np.zeros((len(names) + 7, count))
    for places, part in zip(rows, parts, strict=True):
        own = (part.seconds, part.cache_again, part.main_again, part.padding, part.launches, part.issued, part.fed)
        busy = [part.busy.get(name, 0.0) for name in names]
        for column, values in zip(table, (*own, *busy), strict=True):
            column[places] = values
    seconds, *others = table[:7]
    return Timing(seconds, dict(zip(names, table[7:], strict=True)), *others)
