"""The optional third level of a device model: a learned correction of what the physics leaves over.

Gradient-boosted trees learn ln(measured / predicted) of a family of kernels in one state from the same rows that the
constants were fitted to. A kernel beyond the range of those rows in any feature keeps its physical time, and so do
kernels of a card with what-if figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import log
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.card import Card
from hwsim.cost import Cost
from hwsim.device import Device, Replay, Tags, estimate_all, timed
from hwsim.dtypes import dtype
from hwsim.errors import InputError
from hwsim.kernel_family import kernel_family
from hwsim.mapper import Kernel
from hwsim.measured_kernels import MeasuredKernels, measured_kernels
from hwsim.measurements import Measurements, split_rows

if TYPE_CHECKING:
    from sklearn.ensemble import HistGradientBoostingRegressor

Array: TypeAlias = npt.NDArray[np.float64]
Key: TypeAlias = tuple[str, bool]

LEAST_ROWS = 50  # below which a family in one state is not learned
WHAT_IF = "what-if"  # the source of figures that a user has changed


@dataclass(frozen=True)
class _Learned:
    """The correction of one family in one state, with its features' names and the range that it has seen."""

    names: tuple[str, ...]
    low: Array
    high: Array
    trees: HistGradientBoostingRegressor

    def ratios(self, features: Sequence[Mapping[str, float]]) -> Array:
        """Measured over predicted; 1 outside the range."""
        table = _table(features, self.names)
        ratios: Array = np.exp(self.trees.predict(table))
        inside = np.all((table >= self.low) & (table <= self.high), axis=1)
        known = np.array([set(row) <= set(self.names) for row in features])
        return np.where(inside & known, ratios, 1.0)


@dataclass(frozen=True)
class Residual:
    """Corrections by family of kernels and state (whether kernels are replayed with warm caches)."""

    learned: Mapping[Key, _Learned]

    @classmethod
    def train(cls, device: Device, files: Sequence[Measurements]) -> Residual:
        """Learn from the rows of ``files`` that the device's calibration was fitted to; all rows of other files,
        which are then no test of what was learned."""
        gathered: dict[Key, tuple[list[dict[str, float]], list[float]]] = {}
        for file in files:
            parts = device.card.calibration.parts.get(file.name) if device.card.calibration else None
            rows = split_rows(file.rows, parts)[0] if parts else file.rows
            for kernels in measured_kernels(rows, device):
                costs = estimate_all(kernels.on(device), kernels.kernels)
                features, logs = gathered.setdefault((kernels.family, kernels.replay is not None), ([], []))
                for kernel, cost, measured in zip(kernels.kernels, costs, kernels.measured("seconds"), strict=True):
                    if measured is not None:
                        features.append(_features(kernel, cost))
                        logs.append(log(measured / cost.seconds))
        return cls({key: _learn(*rows) for key, rows in gathered.items() if len(rows[1]) >= LEAST_ROWS})

    def ratios(self, kernels: MeasuredKernels, costs: Sequence[Cost]) -> Array:
        """Measured over predicted, as learned, for kernels whose physical ``costs`` are given."""
        return self.of(kernels.family, kernels.replay is not None, kernels.kernels, costs)

    def of(self, family: str, warm: bool, kernels: Sequence[Kernel], costs: Sequence[Cost]) -> Array:
        """The same for kernels of one family in one state; 1 where nothing was learned."""
        learned = self.learned.get((family, warm))
        if learned is None:
            return np.ones(len(kernels))
        return learned.ratios([_features(kernel, cost) for kernel, cost in zip(kernels, costs, strict=True)])


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


def _features(kernel: Kernel, cost: Cost) -> dict[str, float]:
    """What the trees see of a kernel: logarithms of its sizes, work and predicted times; its format; its flags."""
    work = kernel.work
    row = {
        "seconds": log(cost.seconds),
        "bits": float(dtype(work.dtype).bits),
        "flops": log(1.0 + work.flops),
        "read": log(1.0 + kernel.read_bytes),
        "written": log(1.0 + kernel.write_bytes),
    }
    for name, value in kernel.attrs.items():
        if isinstance(value, bool | int):
            row[f"size {name}"] = float(value) if isinstance(value, bool) else log(1.0 + abs(value))
    return row | {f"busy {name}": seconds / cost.seconds for name, seconds in cost.busy.items()}


def _learn(features: Sequence[Mapping[str, float]], logs: Sequence[float]) -> _Learned:
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits
    except ImportError:
        raise InputError("a learned correction needs scikit-learn: pip install 'hwsim[fit]'") from None
    names = tuple(sorted({name for row in features for name in row}))
    table = _table(features, names)
    trees = HistGradientBoostingRegressor(
        loss="squared_error",
        max_iter=400,
        learning_rate=0.05,
        min_samples_leaf=8,
        l2_regularization=1.0,
        random_state=0,
    )
    with threadpool_limits(1):  # a few hundred rows: threads would only wait for each other
        trees.fit(table, np.clip(logs, -1.0, 1.0))
    return _Learned(names, table.min(axis=0), table.max(axis=0), trees)


def _table(features: Sequence[Mapping[str, float]], names: Sequence[str]) -> Array:
    return np.array([[row.get(name, 0.0) for name in names] for row in features], dtype=float)
