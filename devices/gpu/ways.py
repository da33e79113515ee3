"""Kernels of one family that run in different ways: each way times its own, and one timing holds them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.timing import Array, Load, Timing

Places: TypeAlias = npt.NDArray[np.int64]
Shape = TypeVar("Shape", bound=tuple[Any, ...])


def by_way(
    way: Array | Places, ways: Mapping[int, Callable[[Shape, Load, Chip], Timing]], x: Shape, load: Load, chip: Chip
) -> Timing:
    """The timing of kernels ``x``, each by the one of ``ways`` that ``way`` numbers."""
    if len(way) and (way == way[0]).all():
        return ways[int(way[0])](x, load, chip)
    present = [(rows, times) for number, times in ways.items() if len(rows := np.flatnonzero(way == number))]
    parts = [times(type(x)(*_rows(x, rows)), Load(*_rows(load, rows)), chip) for rows, times in present]
    return _merged([rows for rows, _ in present], parts)


def _rows(columns: Iterable[Array | float], rows: Places) -> list[Any]:
    """The entries ``rows`` of every column."""
    return [column[rows] if isinstance(column, np.ndarray) else column for column in columns]


def _merged(rows: Sequence[Places], parts: Sequence[Timing]) -> Timing:
    """One timing of parts that stand in the given rows."""
    count = sum(len(places) for places in rows)

    def column(values: Iterable[Array | float]) -> Array:
        whole = np.zeros(count)
        for places, part in zip(rows, values, strict=True):
            whole[places] = part
        return whole

    names = dict.fromkeys(name for part in parts for name in part.busy)
    return Timing(
        column(part.seconds for part in parts),
        {name: column(part.busy.get(name, 0.0) for part in parts) for name in names},
        column(part.cache_again for part in parts),
        column(part.main_again for part in parts),
        column(part.padding for part in parts),
        column(part.launches for part in parts),
        column(part.issued for part in parts),
        column(part.fed for part in parts),
    )
