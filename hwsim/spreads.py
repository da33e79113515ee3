"""Spreads: bounds of measured over predicted, told by rows that the prediction did not know.

What errs alike counts once: the runs of one network are off by the same formulas in the same way, and a further network
may be as far from them as they are from each other. Kernels count each by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np

from hwsim.calibration import Calibration, SpreadFile
from hwsim.fitting import Array

FEW_UNITS = 8  # below which a family and state tells no spread
TAIL, CONFIDENCE = 0.05, 0.9  # of the rows lie below, and as many above the bounds of a spread; how sure that is

Ratios: TypeAlias = tuple[str, str, Sequence[Array]]
"""Measured over predicted of a family in a state, in units that err alike."""

Spreads: TypeAlias = dict[str, dict[str, SpreadFile]]
"""By family of kernels, then state."""


def told_spreads(held: Iterable[Ratios], unseen: Iterable[Ratios]) -> Spreads:
    """The bounds that ``held`` ratios tell, and the mean errors of ``unseen`` ones."""
    errors = {key: np.abs(1 / np.concatenate(units) - 1) for key, units in _gathered(unseen).items()}
    spreads: Spreads = {}
    for (family, state), units in _gathered(held).items():
        if len(units) >= FEW_UNITS:
            missed = errors.get((family, state), np.empty(0))
            low, high = spread_bounds(units)
            mape = float(np.mean(missed)) if len(missed) else None
            spreads.setdefault(family, {})[state] = SpreadFile(rows=len(missed), low=low, high=high, mape=mape)
    return spreads


def with_those_of(base: Calibration, own: Spreads) -> Spreads:
    """``own`` spreads, and of families and states that have none those of ``base``, as its constants are taken over."""
    taken = {
        family: {
            state: SpreadFile(low=known.low, high=known.high, taken_from=known.taken_from or base.calibration)
            for state, known in states.items()
        }
        for family, states in base.spreads.items()
    }
    return {family: {**taken.get(family, {}), **own.get(family, {})} for family in {**own, **taken}}


def spread_bounds(units: Sequence[Array]) -> tuple[float, float]:
    """The bounds within which at least 90 % of further ratios lie, with 90 % confidence, from units of ratios that have
    the same distribution; one unit is as much as another, however many ratios it has.

    What lies between the i-th smallest and the i-th largest of n is a share of the distribution that is itself
    distributed as Beta(n + 1 - 2 i, 2 i), whatever the distribution is (Wilks, 1941). Where too few are known for an i
    of 1, a normal distribution of the logarithm is assumed (Howe, JASA 64, 1969), and all of them are within.
    """
    from scipy.optimize import brentq
    from scipy.stats import beta, chi2, norm

    count, held, sizes = len(units), 1 - 2 * TAIL, [len(unit) for unit in units]
    logs = np.log(np.concatenate(units))
    shares = np.repeat(1 / np.array(sizes), sizes)  # of a unit
    beyond = brentq(lambda i: beta.cdf(held, count + 1 - 2 * i, 2 * i) - (1 - CONFIDENCE), 1e-3, count / 4)
    if beyond >= 1:
        low, high = _smallest(logs, shares, beyond), -_smallest(-logs, shares, beyond)
    else:
        mean = float(shares @ logs) / count
        variance = float(shares @ (logs - mean) ** 2) / (count - 1)
        factor = np.sqrt((count - 1) * (1 + 1 / count) / chi2.ppf(1 - CONFIDENCE, count - 1))
        margin = norm.ppf(1 - TAIL) * factor * np.sqrt(variance)
        low, high = min(logs.min(), mean - margin), max(logs.max(), mean + margin)
    return float(np.exp(low)), float(np.exp(high))


def _smallest(values: Array, shares: Array, rank: float) -> float:
    """The ``rank``-th smallest of ``values``, each of which counts as its share; between two of them where the shares
    of none add up to it."""
    order = np.argsort(values)
    return float(np.interp(rank, np.cumsum(shares[order]), values[order]))


def _gathered(found: Iterable[Ratios]) -> dict[tuple[str, str], list[Array]]:
    gathered: dict[tuple[str, str], list[Array]] = {}
    for family, state, units in found:
        gathered.setdefault((family, state), []).extend(units)
    return gathered
