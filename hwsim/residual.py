"""The optional third level of a device model: a learned correction of what the physics leaves over.

Trees learn ln(measured / predicted) of a family of kernels in one state from the same rows that the constants were
fitted to, as far as held-out rows of these say that it helps (`hwsim.residual_learning`). Ratios stay within those that
were seen; a kernel beyond the range of the rows in any size, or of a kind, layout or format that they lack, keeps its
physical time, and so do kernels of a card with what-if figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import log
from typing import ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Device, Replay, Tags, estimate_all, timed
from hwsim.errors import InputError
from hwsim.kernel_family import kernel_family
from hwsim.mapper import Kernel
from hwsim.measured_kernels import MeasuredKernels, measured_kernels
from hwsim.measurements import Measurements, split_rows
from hwsim.residual_features import Columns, Features, features, shape_key
from hwsim.residual_learning import Blend, learn

Array: TypeAlias = npt.NDArray[np.float64]
Key: TypeAlias = tuple[str, bool]

LEAST_ROWS = 50  # below which a family in one state is not learned
WHAT_IF = "what-if"  # the source of figures that a user has changed


@dataclass
class _Rows:
    """What is known of the rows of one family in one state: kernels, their physical costs, ln(measured / predicted)."""

    kernels: list[Kernel] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    logs: list[float] = field(default_factory=list)

    def learned(self, units: float) -> _Learned | None:
        """What they teach, if anything."""
        seen = features(self.kernels, self.costs, units)
        names = tuple(sorted(seen.columns))
        blend = learn(_table(seen, names), np.array(self.logs), list(map(shape_key, self.kernels)))
        if blend is None:
            return None
        ranges = {name: (float(column.min()), float(column.max())) for name, column in _limits(seen).items()}
        return _Learned(names, ranges, units, blend)


@dataclass(frozen=True)
class _Learned:
    """The correction of one family in one state on a device with so many ``units``, with its features' names and the
    ranges of sizes and words that it has seen."""

    names: tuple[str, ...]
    seen: Mapping[str, tuple[float, float]]
    units: float
    blend: Blend

    def ratios(self, kernels: Sequence[Kernel], costs: Sequence[Cost]) -> Array:
        """Measured over predicted; 1 outside the ranges, and for words and sizes that were not seen."""
        told = features(kernels, costs, self.units)
        limited = _limits(told)
        known = np.ones(len(kernels), bool)
        for name in {*self.seen, *limited}:
            low, high = self.seen.get(name, (0.0, 0.0))
            column = limited.get(name, 0.0)
            known &= (low <= column) & (column <= high)
        return np.where(known, np.exp(self.blend.logs(_table(told, self.names))), 1.0)


@dataclass(frozen=True)
class Residual:
    """Corrections by family of kernels and state (whether kernels are replayed with warm caches)."""

    learned: Mapping[Key, _Learned]

    @classmethod
    def train(cls, device: Device, files: Sequence[Measurements]) -> Residual:
        """Learn from the rows of ``files`` that the device's calibration was fitted to; all rows of other files,
        which are then no test of what was learned."""
        gathered: dict[Key, _Rows] = {}
        for file in files:
            parts = device.card.calibration.parts.get(file.name) if device.card.calibration else None
            rows = split_rows(file.rows, parts)[0] if parts else file.rows
            for kernels in measured_kernels(rows, device):
                costs = estimate_all(kernels.on(device), kernels.kernels)
                known = gathered.setdefault((kernels.family, kernels.replay is not None), _Rows())
                for kernel, cost, measured in zip(kernels.kernels, costs, kernels.measured("seconds"), strict=True):
                    if measured is not None:
                        known.kernels.append(kernel)
                        known.costs.append(cost)
                        known.logs.append(log(measured / cost.seconds))
        units = device.card.units
        learned = {key: rows.learned(units) for key, rows in gathered.items() if len(rows.logs) >= LEAST_ROWS}
        return cls({key: known for key, known in learned.items() if known is not None})

    def ratios(self, kernels: MeasuredKernels, costs: Sequence[Cost]) -> Array:
        """Measured over predicted, as learned, for kernels whose physical ``costs`` are given."""
        return self.of(kernels.family, kernels.replay is not None, kernels.kernels, costs)

    def of(self, family: str, warm: bool, kernels: Sequence[Kernel], costs: Sequence[Cost]) -> Array:
        """The same for kernels of one family in one state; 1 where nothing was learned."""
        learned = self.learned.get((family, warm))
        if learned is None:
            return np.ones(len(kernels))
        return learned.ratios(kernels, costs)


class Corrected:
    """A device whose times are corrected by a `Residual`; everything else is the physical model's."""

    parameters: ClassVar[Mapping[str, str]] = {}
    tags: ClassVar[Tags] = Tags()

    def __init__(self, device: Device, residual: Residual, warm: bool = True) -> None:
        if any(figure.source == WHAT_IF for figure in device.card.figures.values()):
            raise InputError("a learned correction belongs to the card that was measured, not to what-if figures")
        self.device = device
        self.residual = residual
        self.warm = warm

    @property
    def card(self) -> Card:
        """The card of the physical device."""
        return self.device.card

    def timed(self, replay: Replay | None) -> Corrected:
        """The same device as a benchmark sees it."""
        return Corrected(timed(self.device, replay), self.residual, warm=replay is not None)

    def estimate(self, kernel: Kernel) -> Cost:
        """The corrected cost of ``kernel``."""
        return self.estimate_all((kernel,))[0]

    def estimate_all(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """The corrected costs of ``kernels``."""
        costs = estimate_all(self.device, kernels)
        families: dict[str, list[int]] = {}
        for place, kernel in enumerate(kernels):
            families.setdefault(kernel_family(kernel), []).append(place)
        for family, places in families.items():
            picked = [kernels[i] for i in places], [costs[i] for i in places]
            for place, ratio in zip(places, self.residual.of(family, self.warm, *picked), strict=True):
                costs[place] = replace(costs[place], seconds=float(ratio) * costs[place].seconds)
        return costs

    def host_seconds(self, kernel: Kernel) -> float:
        """The host's time to issue ``kernel``."""
        return self.device.host_seconds(kernel)


def _limits(of: Features) -> Columns:
    """What must be in the range of the rows that were learned from."""
    return of.sizes | of.words


def _table(of: Features, names: Sequence[str]) -> Array:
    """The features of ``names``, one column each; 0 where the kernels have none."""
    columns = of.columns
    rows = len(of.sizes["seconds"])
    return np.column_stack([columns.get(name, np.zeros(rows)) for name in names])
