"""Whether predictions put competing designs in the right order, which is what a designer asks of them first.

Two kernels compete where they do one `task` in the same state and the same arithmetic, or move the same bytes, by
another route: products of other sizes, a narrower format, another layout, fewer key-value heads, rows cut otherwise, a
recurrence in chunks or token by token. A pair counts where its measured figures differ by more than `DIFFERENCE`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

SAME_WORK = 0.1  # FLOPs or bytes of competitors differ by at most this share
MOST_ROWS = 2000  # of which all pairs are looked at; of more, evenly spaced ones
DIFFERENCE = 0.15  # of the larger over the smaller measured figure
ROUTES = ("chunk_", "recurrent_")  # ways to compute one recurrence
TRAINING = "fwd+bwd"  # the pass that computes gradients too


@dataclass(frozen=True, slots=True)
class RankOrder:
    """How many ``pairs`` compete, and in how many of them the faster one is predicted to be faster."""

    pairs: int
    right: int

    @property
    def share(self) -> float:
        """The share of pairs in the right order; nan where none compete."""
        return self.right / self.pairs if self.pairs else float("nan")


def task_of(spec: Mapping[str, object]) -> str:
    """What a kernel computes, whatever its route: its op, or its recurrence; gradients are a task of their own."""
    op = str(spec["op"])
    for route in ROUTES:
        op = op.removeprefix(route)
    return f"{op} {TRAINING}" if spec.get("pass_") == TRAINING else op


def rank_order(
    tasks: npt.NDArray[np.str_], measured: Array, predicted: Array, flops: Array, nbytes: Array
) -> RankOrder:
    """The order of all pairs of kernels that compete, each pair once; of `MOST_ROWS` kernels where there are more."""
    step = -(-len(measured) // MOST_ROWS) or 1
    tasks = tasks[::step]
    measured, predicted, flops, nbytes = (column[::step] for column in (measured, predicted, flops, nbytes))
    first, second = np.triu_indices(len(measured), 1)
    competing = (tasks[first] == tasks[second]) & (_alike(flops, first, second) | _alike(nbytes, first, second))
    ratio = np.log(measured[first] / measured[second])
    counted = competing & (np.abs(ratio) > np.log1p(DIFFERENCE))
    right = ratio * np.log(predicted[first] / predicted[second]) > 0
    return RankOrder(int(counted.sum()), int((counted & right).sum()))


def _alike(work: Array, first: npt.NDArray[np.int64], second: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Whether both do some of this work, and about as much."""
    low, high = np.minimum(work[first], work[second]), np.maximum(work[first], work[second])
    alike: npt.NDArray[np.bool_] = (low > 0.0) & (high <= (1 + SAME_WORK) * low)
    return alike
