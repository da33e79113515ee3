"""Fits the constants of a device to measured times and energies: robust least squares in the logarithm.

For rows i with measured y_i and predicted p_i(c), c minimises sum of rho(ln p_i / y_i) (soft L1, so that rows which a
library runs in a way that no model expects do not decide) within the bounds of the constants. Each sample weighs the
same, as far as its rows do not weigh more than twice the average. Confidence intervals are those of the linearised
problem at the optimum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from hwsim.calibration import Constant, Fitted
from hwsim.device import Device

Array: TypeAlias = npt.NDArray[np.float64]

TYPICAL_ERROR = 0.1  # of a good row in ln(p / y); beyond it rows count ever less
Z_CONFIDENCE = 1.645  # standard deviations that hold 90 % of a normal distribution
TELLING = 0.02  # change of a prediction, as a share, by which a constant makes itself felt
STEP = 1e-3  # relative, of the numerical derivatives
MAX_ROUNDS = 40
MOST_WEIGHT = 2.0  # of a row of a small sample, over the average row
AT_BOUND = 0.02  # relative distance from a bound of what ends there
UNTOLD = 0.75  # of the range of a constant, in logarithms: a wider interval says next to nothing
PULL = 0.02  # of a constant towards its start, in units of a typical error per e-fold, so that none floats freely


@runtime_checkable
class Calibratable(Device, Protocol):
    """A device whose constants can be fitted. ``batches`` prepares kernels once, whatever the constants are."""

    constants: ClassVar[Mapping[str, Constant]]

    def with_constants(self, values: Mapping[str, float]) -> Self:
        """The same device with other values of some constants."""
        ...

    def batches(self, kernels: Sequence[Any]) -> Any:
        """``kernels`` made ready for `seconds` and `joules`."""
        ...

    def seconds(self, batches: Any) -> Array:
        """Seconds of every kernel, in the order given to `batches`."""
        ...

    def joules(self, batches: Any, seconds: Array | None = None) -> Array:
        """Joules of every kernel, static power included, in its own or the given ``seconds``."""
        ...


@dataclass(frozen=True)
class Sample:
    """Measured rows in one state of one device: their seconds, or their joules in ``seconds`` that are measured too, so
    that energies do not make good for times."""

    device: Calibratable
    batches: Any
    measured: Array
    seconds: Array | None = None

    def errors(self, values: Mapping[str, float]) -> Array:
        """ln(predicted / measured) with these constants."""
        device = self.device.with_constants(values)
        timed = self.seconds is None
        predicted = device.seconds(self.batches) if timed else device.joules(self.batches, self.seconds)
        return np.log(predicted / self.measured)


def fit(samples: Sequence[Sample], names: Sequence[str], start: Mapping[str, float]) -> dict[str, Fitted]:
    """The constants ``names`` that suit ``samples`` best, from ``start``, with confidence intervals."""
    from scipy.optimize import least_squares

    constants = samples[0].device.constants
    low = np.log([constants[name].low for name in names])
    high = np.log([constants[name].high for name in names])
    first = np.clip(np.log([start[name] for name in names]), low + STEP, high - STEP)
    residuals = _residuals(samples, names, first)
    found = least_squares(
        residuals, first, bounds=(low, high), loss="soft_l1", diff_step=STEP, x_scale=0.1, max_nfev=MAX_ROUNDS
    )
    margin = Z_CONFIDENCE * _deviations(found.jac, found.fun)
    bounds = np.exp((np.maximum(low, found.x - margin), np.minimum(high, found.x + margin)))
    return {
        name: fitted_value(constants[name], *(float(value[i]) for value in (np.exp(found.x), *bounds)))
        for i, name in enumerate(names)
    }


def fitted_value(constant: Constant, value: float, low: float, high: float) -> Fitted:
    """A fitted constant, with a remark where it ends at a bound or where its interval is nearly all that is allowed."""
    remarks = []
    for bound, side in ((constant.low, "lower"), (constant.high, "upper")):
        if abs(np.log(value / bound)) < AT_BOUND:
            remarks.append(f"at its {side} bound of {bound:.3g}")
    if np.log(high / low) > UNTOLD * np.log(constant.high / constant.low):
        remarks.append("the rows hardly tell it")
    return Fitted(value=value, low=low, high=high, unit=constant.unit, remark=", ".join(remarks))


def informed(samples: Sequence[Sample], names: Sequence[str], start: Mapping[str, float]) -> list[str]:
    """Those of ``names`` that the measurements tell: a value half way to a bound changes some prediction."""
    constants = samples[0].device.constants
    before = [sample.errors(start) for sample in samples]

    def felt(name: str, bound: float) -> bool:
        moved = {**start, name: (start[name] * bound) ** 0.5}
        pairs = zip(samples, before, strict=True)
        return any(np.abs(sample.errors(moved) - errors).max(initial=0.0) > TELLING for sample, errors in pairs)

    return [name for name in names if felt(name, constants[name].low) or felt(name, constants[name].high)]


def _residuals(samples: Sequence[Sample], names: Sequence[str], first: Array) -> Callable[[Array], Array]:
    """Errors in units of a typical one; every sample as if it had the mean number of rows, up to `MOST_WEIGHT`."""
    mean = sum(len(sample.measured) for sample in samples) / len(samples)
    weights = [np.sqrt(min(MOST_WEIGHT, mean / len(sample.measured))) / TYPICAL_ERROR for sample in samples]

    def residuals(logs: Array) -> Array:
        values = dict(zip(names, np.exp(logs).tolist(), strict=True))
        parts = [weight * sample.errors(values) for weight, sample in zip(weights, samples, strict=True)]
        return np.concatenate([*parts, PULL / TYPICAL_ERROR * (logs - first)])

    return residuals


def _deviations(jacobian: Array, residuals: Array) -> Array:
    """Standard deviations of the fitted logarithms."""
    freedom = max(1, len(residuals) - jacobian.shape[1])
    covariance = np.linalg.pinv(jacobian.T @ jacobian) * float(residuals @ residuals) / freedom
    deviations: Array = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return deviations
