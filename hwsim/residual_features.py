"""What a learned correction sees of kernels: their sizes, and hints of where a physical model may err.

All come from what every kernel and every cost has, as columns with one entry a kernel; only how many tiles a result
has is told by kind (`_TILINGS`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.companions import BESIDE
from hwsim.cost import Cost
from hwsim.dtypes import dtype
from hwsim.graph import Attribute, Kind
from hwsim.mapper import Kernel

Array: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = dict[str, Array]

NO_SHAPE = (BESIDE, "compute")  # attributes that are not of a shape
TILES = (64, 128, 256)  # sides of the tiles that libraries cut results into; smaller ones divide most sizes
PAIRS = ((64, 128), (128, 64), (128, 128), (128, 256), (256, 128))
MOST_ALIGNED = 8.0  # the logarithm of the largest power of two that is told from others
MANY_WAVES = 20.0  # of which the last, however full, does not matter


@dataclass(frozen=True)
class Features:
    """Of some kernels: ``sizes``, in whose range a correction holds, ``words`` (kind, format, layout, flags: 1 where
    they hold), which it must have seen, and ``hints``, which only tell kernels apart; 0 where a kernel has none."""

    sizes: Columns
    words: Columns
    hints: Columns

    @property
    def columns(self) -> Columns:
        """All of them by name."""
        return self.sizes | self.words | self.hints


def features(kernels: Sequence[Kernel], costs: Sequence[Cost], units: float) -> Features:
    """The features of kernels that take ``costs`` on a device with so many ``units``; logarithms where they can be."""
    numbers, words = _attributes(kernels)
    works = [kernel.work for kernel in kernels]
    sizes = {
        "seconds": np.log([cost.seconds for cost in costs]),
        "bits": np.array([float(dtype(work.dtype).bits) for work in works]),
        "flops": np.log1p([work.flops for work in works]),
        "read": np.log1p([kernel.read_bytes for kernel in kernels]),
        "written": np.log1p([kernel.write_bytes for kernel in kernels]),
        **{f"size {name}": np.log1p(column) for name, column in numbers.items()},
    }
    hints: Columns = {}
    for name, column in numbers.items():
        if name != BESIDE:
            hints.update(_fit(name, column))
    for name, tiles in _tiles(kernels, numbers):
        hints.update(_waves(name, tiles / units))
    rows = len(kernels)
    hints |= {f"bytes of {role}": np.log1p(column) for role, column in _gathered(map(_operands, kernels), rows)}
    hints |= {f"busy {name}": column for name, column in _gathered(map(_shares, costs), rows)}
    hints |= {f"traffic {name}": np.log1p(column) for name, column in _gathered((cost.traffic for cost in costs), rows)}
    hints |= {f"bound by {name}": column for name, column in _gathered(({cost.bound: 1.0} for cost in costs), rows)}
    return Features(sizes, words, hints)


def shape_key(kernel: Kernel) -> tuple[object, ...]:
    """The same for all kernels of one shape, whatever their number format and what runs beside them."""
    return (kernel.kind, *sorted((name, str(value)) for name, value in kernel.attrs.items() if name not in NO_SHAPE))


def _attributes(kernels: Sequence[Kernel]) -> tuple[Columns, Columns]:
    """Sizes by name, those of tuples (taps, pixels) by place; and words: kinds, formats, flags, layouts, functions."""
    numbers: Columns = {}
    words: Columns = {}
    for row, kernel in enumerate(kernels):
        for word in (f"kind {kernel.kind}", f"format {kernel.work.dtype}"):
            _column(words, word, len(kernels))[row] = 1.0
        for name, value in kernel.attrs.items():
            if isinstance(value, bool | str):
                _column(words, f"{name} {value}", len(kernels))[row] = 1.0
            else:
                for label, size in _sizes(name, value):
                    _column(numbers, label, len(kernels))[row] = abs(size)
    return numbers, words


def _sizes(name: str, value: Attribute) -> Iterator[tuple[str, int]]:
    """The whole numbers of an attribute."""
    if isinstance(value, int):
        yield name, value
    elif isinstance(value, tuple):
        yield from ((f"{name} {place}", part) for place, part in enumerate(value) if isinstance(part, int))


def _column(columns: Columns, name: str, rows: int) -> Array:
    """The column ``name``, a new one of zeros where there is none yet."""
    if name not in columns:
        columns[name] = np.zeros(rows)
    return columns[name]


def _gathered(of_rows: Iterable[Mapping[str, float]], rows: int) -> Iterator[tuple[str, Array]]:
    """The columns of what each row tells by name."""
    columns: Columns = {}
    for row, told in enumerate(of_rows):
        for name, value in told.items():
            _column(columns, name, rows)[row] = value
    yield from columns.items()


def _shares(cost: Cost) -> dict[str, float]:
    """How long each resource is busy, as a share of the time."""
    return {name: seconds / cost.seconds for name, seconds in cost.busy.items()}


def _operands(kernel: Kernel) -> dict[str, float]:
    """Bytes by what operands are to the model."""
    found: dict[str, float] = {}
    for flow in kernel.flows:
        role = f"{flow.role} {'written' if flow.write else 'read'}"
        found[role] = found.get(role, 0.0) + flow.nbytes
    return found


def _fit(name: str, sizes: Array) -> Iterator[tuple[str, Array]]:
    """How sizes suit vectors and tiles: the power of two that divides them, and what whole tiles are larger by."""
    some, whole = sizes > 0, np.maximum(1.0, sizes)
    exact = whole.astype(np.int64)
    yield f"power of two in {name}", np.where(some, np.minimum(MOST_ALIGNED, np.log2(exact & -exact)), 0.0)
    for tile in TILES:
        yield f"{name} in tiles of {tile}", np.where(some, np.log(np.ceil(whole / tile) * tile / whole), 0.0)


def _tiles(kernels: Sequence[Kernel], numbers: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
    """How many tiles the results have, by the tiles that a library may take; 0 of kinds that are not tiled."""
    ones = np.ones(len(kernels))

    def size(name: str) -> Array:
        return np.maximum(1.0, numbers.get(name, ones))

    kinds = [kernel.kind for kernel in kernels]
    for kind in sorted(set(kinds) & set(_TILINGS)):
        mine = np.array([one is kind for one in kinds])
        for name, count in _TILINGS[kind](size):
            yield name, np.where(mine, count, 0.0)


def _product_tiles(size: Callable[[str], Array]) -> Iterator[tuple[str, Array]]:
    yield from _tiled(size("batch"), size("m"), size("n"))


def _convolution_tiles(size: Callable[[str], Array]) -> Iterator[tuple[str, Array]]:
    pixels = size("batch") * size("out_size 0") * size("out_size 1") * size("out_size 2")
    yield from _tiled(size("groups"), pixels, size("out_channels") / size("groups"))


def _attention_tiles(size: Callable[[str], Array]) -> Iterator[tuple[str, Array]]:
    heads, groups = size("batch") * size("heads"), size("batch") * size("kv_heads")
    for tile in TILES[:2]:
        yield f"{tile} queries of a head", heads * np.ceil(size("q_len") / tile)
        yield f"{tile} queries of a group", groups * np.ceil(size("q_len") * heads / groups / tile)


def _tiled(count: Array, rows: Array, columns: Array) -> Iterator[tuple[str, Array]]:
    for tall, wide in PAIRS:
        yield f"tiles of {tall} x {wide}", count * np.ceil(rows / tall) * np.ceil(columns / wide)


_TILINGS: Mapping[Kind, Callable[[Callable[[str], Array]], Iterator[tuple[str, Array]]]] = {
    Kind.MATMUL: _product_tiles,
    Kind.CONV: _convolution_tiles,
    Kind.ATTENTION: _attention_tiles,
}


def _waves(name: str, waves: Array) -> Iterator[tuple[str, Array]]:
    """How often ``waves`` fill the device, and what whole waves are longer by."""
    some = waves > 0
    held = np.where(some, waves, 1.0)
    yield f"waves, {name}", np.where(some, np.log(held), 0.0)
    yield f"whole waves, {name}", np.where(some & (waves < MANY_WAVES), np.log(np.ceil(held) / held), 0.0)
