"""Which experts tokens ask for, and how many of them a cache on the device lacks: simulated, and in closed form.

A step walks through the layers with mixtures; each asks for the distinct experts of its rows. All layers share one
cache of so many experts. Layers rank their experts independently, so that only popularity matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from hwsim.compiled import compiled

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

POLICIES = ("lru", "lfu", "lifo")
EXACT = 4  # rows per expert up to which picks are drawn one by one; beyond, experts come and go independently


@dataclass(frozen=True, slots=True)
class Demand:
    """What one layer asks for in a step: ``rows`` picks among ``experts``; 1/rank**``skew`` is their popularity."""

    experts: int
    rows: int
    skew: float = 0.0

    @property
    def popularity(self) -> Floats:
        """The share of picks of each expert."""
        weights = np.arange(1, self.experts + 1, dtype=np.float64) ** -self.skew
        return np.asarray(weights / weights.sum())

    @property
    def touched(self) -> Floats:
        """The probability that a step asks for each expert: 1-(1-p)**rows."""
        return np.asarray(-np.expm1(self.rows * np.log1p(-np.minimum(self.popularity, 1 - 1e-16))))

    @property
    def distinct(self) -> float:
        """Distinct experts that a step asks for, on average: E(1-(1-1/E)**rows) where all are alike."""
        return float(self.touched.sum())


@dataclass(frozen=True, slots=True)
class ExpertCache:
    """A cache of ``capacity`` experts that evicts the least recently used, least often used, or newest one."""

    capacity: int
    policy: str = "lru"

    def misses(self, demands: Sequence[Demand], steps: int, seed: int) -> tuple[float, ...]:
        """Experts that each layer misses in a step, on average over the second half of ``steps`` simulated ones."""
        if self.capacity == 0:
            return tuple(demand.distinct for demand in demands)
        asked = [asks(demand, steps, np.random.default_rng([seed, layer])) for layer, demand in enumerate(demands)]
        starts = np.cumsum([0, *[demand.experts for demand in demands]])
        missed = _walk(np.concatenate(asked, axis=1), starts, self.capacity, POLICIES.index(self.policy), steps // 2)
        return tuple((missed / (steps - steps // 2)).tolist())

    def expected_misses(self, demands: Sequence[Demand]) -> tuple[float, ...]:
        """The same in closed form, for requests that do not depend on the past.

        LFU holds the most popular experts. LRU holds an expert that was asked for in the last t steps, with t such that
        the cache is full (Che et al., IEEE JSAC 20(7), 2002); LIFO one that was asked for in the first t steps.
        """
        touched = [demand.touched for demand in demands]
        every = np.concatenate(touched)
        if self.capacity >= len(every):
            return tuple(0.0 for _ in demands)
        held = (_most_popular if self.policy == "lfu" else _recent)(every, self.capacity)
        missed = every * (1 - held)
        ends = np.cumsum([len(part) for part in touched])
        return tuple(float(part.sum()) for part in np.split(missed, ends[:-1]))


def asks(demand: Demand, steps: int, random: np.random.Generator) -> Flags:
    """Which experts each of ``steps`` steps asks for."""
    if demand.rows > EXACT * demand.experts:
        return np.asarray(random.random((steps, demand.experts)) < demand.touched)
    picks = random.choice(demand.experts, size=(steps, demand.rows), p=demand.popularity)
    asked = np.zeros((steps, demand.experts), dtype=np.bool_)
    asked[np.arange(steps)[:, None], picks] = True
    return asked


def whole_fetches(expected: Sequence[float]) -> tuple[float, ...]:
    """Fetches per layer of a step in which layers fetch whole experts, in turn, and all together as many as expected.

    The first layer takes its average, as its fetch delays the step in proportion; the last what is left over.
    """
    if len(expected) < 2:
        return tuple(expected)
    left = 0.0
    fetched = []
    for count in expected[1:]:
        left += count
        whole = floor(left + 1e-9)
        fetched.append(float(whole))
        left -= whole
    fetched[-1] += max(0.0, left)
    return (expected[0], *fetched)


def _most_popular(touched: Floats, capacity: int) -> Floats:
    """Shares of the time that experts are held: the most popular always, those alike at the edge in equal parts."""
    edge = np.sort(touched)[::-1][capacity - 1] if capacity else np.inf
    above, alike = touched > edge * (1 + 1e-12), np.isclose(touched, edge, rtol=1e-12)
    share = (capacity - above.sum()) / max(1, alike.sum()) if capacity else 0.0
    return np.asarray(above + alike * share)


def _recent(touched: Floats, capacity: int) -> Floats:
    if capacity == 0:
        return np.zeros_like(touched)
    logs = np.log1p(-np.minimum(touched, 1 - 1e-16))

    def held(steps: float) -> Floats:
        return np.asarray(-np.expm1(steps * logs))

    most = 1.0
    while held(most).sum() < capacity:
        most *= 2
    steps = brentq(lambda t: float(held(t).sum()) - capacity, 0.0, most)
    return held(float(steps))


@compiled
def _walk(asked: Flags, starts: npt.NDArray[np.int64], capacity: int, policy: int, warm: int) -> Floats:
    """Misses of each layer after ``warm`` steps: experts of a step in order, one cache for all layers."""
    steps, experts = asked.shape
    layers = len(starts) - 1
    slots = np.full(capacity, -1)
    where = np.full(experts, -1)
    used = np.zeros(experts, dtype=np.int64)
    times = np.zeros(experts, dtype=np.int64)
    entered = np.zeros(experts, dtype=np.int64)
    missed = np.zeros(layers)
    filled = clock = 0
    for step in range(steps):
        for layer in range(layers):
            for expert in range(starts[layer], starts[layer + 1]):
                if not asked[step, expert]:
                    continue
                clock += 1
                times[expert] += 1
                used[expert] = clock
                if where[expert] >= 0:
                    continue
                if step >= warm:
                    missed[layer] += 1
                if filled < capacity:
                    slot = filled
                    filled += 1
                else:
                    slot = _victim(slots, used, times, entered, policy)
                    where[slots[slot]] = -1
                slots[slot], where[expert], entered[expert] = expert, slot, clock
    return missed


@compiled
def _victim(
    slots: npt.NDArray[np.int64],
    used: npt.NDArray[np.int64],
    times: npt.NDArray[np.int64],
    entered: npt.NDArray[np.int64],
    policy: int,
) -> int:
    """The slot to empty: last used first (0), used least (1; of these last used first), entered last (2)."""
    best = 0
    for slot in range(1, len(slots)):
        one, other = slots[slot], slots[best]
        if policy == 0:
            better = used[one] < used[other]
        elif policy == 1:
            better = times[one] < times[other] or (times[one] == times[other] and used[one] < used[other])
        else:
            better = entered[one] > entered[other]
        if better:
            best = slot
    return best
