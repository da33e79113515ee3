"""What is asked of a model: a phase with its batch, lengths and number format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

from hwsim.errors import InputError, Problem, nearest_name
from hwsim.precision import check_precision

PHASES = ("forward", "prefill", "decode", "generate", "train")
MAX_SIZE = 2**40  # beyond this a size is a mistake
DECODE_BOUND = 0.005  # relative error allowed in the integral over a growing context


@dataclass(frozen=True, slots=True)
class Workload:
    """``prompt`` tokens of ``batch`` sequences, then ``generate`` new ones each.

    prefill takes the prompt; decode the one token after it; generate both and all further tokens; train a forward, a
    backward and an AdamW step over the prompt; forward the graph as it is.
    """

    phase: str = "forward"
    batch: int = 1
    prompt: int = 2048
    generate: int = 128
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        problems = []
        if self.phase not in PHASES:
            nearest = nearest_name(self.phase, PHASES)
            problems.append(Problem(f"unknown phase '{self.phase}'", expected=", ".join(PHASES), nearest=nearest))
        for name in ("batch", "prompt", "generate"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
                problems.append(Problem(path=name, got=repr(value), expected=f"a whole number from 1 to {MAX_SIZE}"))
        if problems:
            raise InputError(*problems)
        check_precision(self.dtype)


@dataclass(frozen=True, slots=True)
class Quadrature:
    """Points of a growing context with their weights, and the estimated relative error of the weighted sum."""

    points: tuple[int, ...]
    weights: tuple[float, ...]
    error: float


def integrate(cost: Callable[[int], float], first: int, count: int, bound: float = DECODE_BOUND) -> Quadrature:
    """Points and weights so that sum(w·cost(p)) is the sum of ``cost`` over ``first .. first+count-1``.

    The cost is taken as linear between the sampled points. Intervals are halved, the worst first, until the change
    that halving makes, summed over all intervals, is below half of ``bound``.
    """
    last = first + count - 1
    if count <= 3:
        return Quadrature(tuple(range(first, last + 1)), (1.0,) * count, 0.0)
    known = {point: cost(point) for point in (first, (first + last) // 2, last)}
    edges = sorted(known)
    errors = {edges[0]: float("inf"), edges[1]: float("inf")}
    while True:
        total = sum(weight * known[point] for point, weight in _weights(edges).items())
        missing = sum(errors.values())
        if missing <= 0.5 * bound * total or not errors:
            break
        left = max(errors, key=errors.__getitem__)
        _halve(cost, known, edges, errors, left)
    weights = _weights(edges)
    return Quadrature(tuple(edges), tuple(weights[point] for point in edges), missing / total if total else 0.0)


def _halve(
    cost: Callable[[int], float], known: dict[int, float], edges: list[int], errors: dict[int, float], left: int
) -> None:
    """Sample the middle of the interval that starts at ``left``; both halves inherit what the middle was off by."""
    position = edges.index(left)
    right = edges[position + 1]
    del errors[left]
    middle = (left + right) // 2
    if middle == left:
        return
    known[middle] = cost(middle)
    share = (middle - left) / (right - left)
    off = abs(known[middle] - (known[left] + share * (known[right] - known[left])))
    edges.insert(position + 1, middle)
    # A kink in one half is at most as wide as the half; a smooth curve's error falls fourfold instead.
    for start, stop in ((left, middle), (middle, right)):
        if stop - start > 1:
            errors[start] = 0.5 * off * (stop - start)


def _weights(edges: list[int]) -> dict[int, float]:
    """How much each point counts when every whole number between the edges is interpolated linearly."""
    weights = dict.fromkeys(edges, 0.0)
    for left, right in pairwise(edges):
        steps = right - left
        # The points left .. right-1: the interpolation gives the left edge (steps+1)/2 of them.
        weights[left] += (steps + 1) / 2
        weights[right] += (steps - 1) / 2
    weights[edges[-1]] += 1.0
    return weights
