"""Trees that learn ln(measured / predicted) from a table of features, as far as held-out rows say that they help.

Learners differ in how they err: extremely randomised trees, of which the median is taken (a measurement that is off
moves few of them), and boosted trees, for squared and for absolute errors. Each predicts every row from the rows of
other shapes; the blend of them, and the strength at which it is applied, are those with the least error there. A blend
whose gain over none at all may be chance is not applied.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hwsim.errors import InputError

if TYPE_CHECKING:
    from sklearn.ensemble import ExtraTreesRegressor

Array: TypeAlias = npt.NDArray[np.float64]

FOLDS = 3
TREES, TREES_OF_A_FOLD = 100, 50
ROUNDS, RATE = 200, 0.12  # of boosting
SHARES, STRENGTHS = (0.0, 0.5, 1.0), (1.0, 0.75, 0.5, 0.25)
SURE = 1.5  # standard errors of the mean gain over no correction: noise passes for a gain once in some twenty times


class Learner(Protocol):
    """What predicts logarithms from a table of features."""

    def fit(self, table: Array, logs: Array) -> object:
        """Learn from rows."""

    def predict(self, table: Array) -> Array:
        """The logarithms of rows."""


@dataclass(frozen=True)
class Blend:
    """The sum of some learners' predictions, each times its weight, within the range of what they learned and 0."""

    parts: Sequence[tuple[float, Learner]]
    low: float
    high: float

    def logs(self, table: Array) -> Array:
        """The logarithm of the ratio of every row."""
        total = sum((weight * part.predict(table) for weight, part in self.parts), np.zeros(len(table)))
        return np.clip(total, self.low, self.high)


class Forest:
    """Extremely randomised trees (Geurts, Ernst and Wehenkel 2006); their median."""

    def __init__(self, trees: int) -> None:
        from sklearn.ensemble import ExtraTreesRegressor

        self._trees: ExtraTreesRegressor = ExtraTreesRegressor(
            trees, max_features=0.6, min_samples_leaf=2, random_state=0
        )

    def fit(self, table: Array, logs: Array) -> object:
        """Learn from rows."""
        return self._trees.fit(table, logs)

    def predict(self, table: Array) -> Array:
        """The median of all trees."""
        rows = table.astype(np.float32)
        median: Array = np.median([tree.predict(rows, check_input=False) for tree in self._trees.estimators_], axis=0)
        return median


def learn(table: Array, logs: Array, shapes: Sequence[Hashable]) -> Blend | None:
    """The blend that suits rows of shapes not learned from; None if it is not surely better than no correction."""
    if find_spec("sklearn") is None:
        raise InputError("a learned correction needs scikit-learn: pip install 'hwsim[fit]'")
    from threadpoolctl import threadpool_limits

    if len(set(shapes)) < FOLDS:
        return None
    learners = _learners(TREES)  # loads the libraries whose threads are limited
    with threadpool_limits(1):  # a few thousand rows: threads would only wait for each other
        weights = chosen(_held_out(table, logs, _folds(shapes)), logs)
        if weights is None:
            return None
        parts = [(weight, learner) for weight, learner in zip(weights, learners, strict=True) if weight]
        for _, learner in parts:
            learner.fit(table, logs)
    return Blend(parts, min(0.0, float(logs.min())), max(0.0, float(logs.max())))


def chosen(held_out: Array, logs: Array) -> tuple[float, ...] | None:
    """The weights of the learners whose predictions of the same rows are the columns of ``held_out``."""
    none = _errors(0.0, logs)
    blends = list(_blends(held_out.shape[1]))
    errors = [_errors(held_out @ np.array(weights), logs) for weights in blends]
    best = int(np.argmin([np.mean(found) for found in errors]))
    gain = none - errors[best]
    return blends[best] if np.mean(gain) > SURE * np.std(gain) / np.sqrt(len(gain)) else None


def _errors(predicted: Array | float, logs: Array) -> Array:
    """|predicted / measured - 1|."""
    errors: Array = np.abs(np.exp(predicted - logs) - 1.0)
    return errors


def _blends(learners: int) -> Iterator[tuple[float, ...]]:
    """Weights of the learners: shares that sum to one, times a strength."""
    for shares in product(SHARES, repeat=learners):
        if sum(shares) == 1.0:
            for strength in STRENGTHS:
                yield tuple(strength * share for share in shares)


def _held_out(table: Array, logs: Array, folds: npt.NDArray[np.int64]) -> Array:
    """What every learner says of each row having seen the rows of other folds alone."""
    found = np.zeros((len(logs), len(_learners(1))))
    for fold in range(FOLDS):
        inside = folds == fold
        for place, learner in enumerate(_learners(TREES_OF_A_FOLD)):
            learner.fit(table[~inside], logs[~inside])
            found[inside, place] = learner.predict(table[inside])
    return found


def _folds(shapes: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """A fold for every row, at random, the same for all rows of one shape."""
    numbers: dict[Hashable, int] = {}
    of_rows = np.array([numbers.setdefault(shape, len(numbers)) for shape in shapes])
    of_shapes = np.random.default_rng(0).permutation(len(numbers)) % FOLDS
    folds: npt.NDArray[np.int64] = of_shapes[of_rows]
    return folds


def _learners(trees: int) -> list[Learner]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    boosted = [
        HistGradientBoostingRegressor(
            loss=loss,
            max_iter=ROUNDS,
            learning_rate=RATE,
            min_samples_leaf=5,
            l2_regularization=1.0,
            max_features=0.3,
            early_stopping=False,
            random_state=0,
        )
        for loss in ("squared_error", "absolute_error")
    ]
    return [Forest(trees), *boosted]
