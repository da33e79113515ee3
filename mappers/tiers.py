"""Which share of what lies in which tier: by traffic per byte (greedy), or by the least time of traffic (LP)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import coo_array, csr_array

from hwsim.errors import DoesNotFitError, HwsimError

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.intp]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

THRIFT = 1e-6  # weight of the traffic of all tiers together, so that of two placements equally fast the nearer is taken
ROUNDING = 1e-12  # share of an item that is none


@dataclass(frozen=True, slots=True)
class Tier:
    """A memory that data may be placed in: bytes of room, B/s of reads and writes.

    ``far``: kernels cannot address it. What lies there is copied while other kernels run, over ``links`` (B/s by name)
    that it may share with other tiers; what is written there goes ``back`` over others, or the same if half duplex.
    """

    name: str
    capacity: float
    read: float
    write: float
    links: tuple[tuple[str, float], ...] = ()
    back: tuple[tuple[str, float], ...] = ()

    @property
    def far(self) -> bool:
        """Whether its bytes come over links."""
        return bool(self.links)

    @property
    def inward(self) -> float:
        """B/s at which its bytes come: those of the memory or of its narrowest link."""
        return min([self.read, *[bandwidth for _, bandwidth in self.links]])

    @property
    def outward(self) -> float:
        """B/s at which bytes go there."""
        return min([self.write, *[bandwidth for _, bandwidth in self.back]])

    def seconds(self, reads: FloatArray, writes: FloatArray) -> FloatArray:
        """Time of traffic at full bandwidth, one byte after the other."""
        return reads / self.inward + writes / self.outward

    def busy(self, reads: FloatArray, writes: FloatArray) -> dict[str, FloatArray]:
        """Time that the memory and each link, by name, spend on traffic."""
        found = {self.name: reads / self.read + writes / self.write}
        for moved, links in ((reads, self.links), (writes, self.back)):
            for link, bandwidth in links:
                found[link] = found.get(link, 0.0) + moved / bandwidth
        return found


@dataclass(frozen=True, slots=True)
class Placing:
    """What is to be placed. ``alive`` holds the bytes of each item (columns) at each moment (rows); ``reads`` and
    ``writes`` those that each kernel (rows) moves of it in all its runs. ``tiers`` are in order of preference.
    ``awaited`` are items that kernels make for each other: copies of these from and to far tiers stand between kernels.
    """

    items: tuple[str, ...]
    alive: FloatArray
    reads: FloatArray
    writes: FloatArray
    tiers: tuple[Tier, ...]
    awaited: BoolArray

    @property
    def sizes(self) -> FloatArray:
        """The most bytes of each item at any moment."""
        return np.asarray(self.alive.max(axis=0, initial=0.0))

    def used(self, shares: FloatArray) -> FloatArray:
        """The most bytes at once in each tier."""
        return np.asarray((self.alive @ shares).max(axis=0, initial=0.0))

    def seconds(self, shares: FloatArray) -> float:
        """Time of all traffic: tiers that a kernel addresses work side by side while it runs, kernels one after the
        other, with what they wait for in between; far tiers and their links work beside all of that."""
        each = [
            tier.seconds(self.reads @ part, self.writes @ part) for tier, part in zip(self.tiers, shares.T, strict=True)
        ]
        near = [part for tier, part in zip(self.tiers, each, strict=True) if not tier.far]
        waited = float((self.waiting * shares.T).sum())
        spans = [waited + (float(np.max(near, axis=0).sum()) if near else 0.0)]
        spans += [float((busy * shares).sum()) for busy in self.beside.values()]
        return max(spans)

    @property
    def waiting(self) -> FloatArray:
        """Seconds between kernels if all of an item (columns) lay in each tier (rows)."""
        reads, writes = self.reads.sum(axis=0), self.writes.sum(axis=0)
        return np.array([tier.seconds(reads, writes) * (self.awaited & tier.far) for tier in self.tiers])

    @property
    def beside(self) -> dict[str, FloatArray]:
        """Busy seconds of what works beside kernels, far memories and links, if all of an item (rows) lay in each tier
        (columns)."""
        reads, writes = self.reads.sum(axis=0), self.writes.sum(axis=0)
        found: dict[str, FloatArray] = {}
        for number, tier in enumerate(self.tiers):
            for name, busy in tier.busy(reads, writes).items() if tier.far else ():
                table = found.setdefault(name, np.zeros((len(self.items), len(self.tiers))))
                table[:, number] = busy
        return found


def check_room(placing: Placing, what: str, where: str) -> None:
    """Raises `DoesNotFitError` where all tiers together are too small."""
    needed = float(placing.alive.sum(axis=1).max(initial=0.0))
    room = sum(tier.capacity for tier in placing.tiers)
    if needed > room * (1 + 1e-12):
        tiers = ", ".join(tier.name for tier in placing.tiers)
        raise DoesNotFitError(what, needed, room, f"the tiers of {where} ({tiers})")


def greedy(placing: Placing) -> FloatArray:
    """Shares (items x tiers): the item with the most traffic per byte first, each into the first tiers with room.

    What is alive at different moments leaves gaps that no later item may fit into: then the linear program places all.
    """
    shares = _filled(placing)
    return shares if (shares.sum(axis=1) > 1 - ROUNDING).all() else least_time(placing)


def _filled(placing: Placing) -> FloatArray:
    """The shares that find room, one item after the other."""
    sizes = placing.sizes
    traffic = (placing.reads + placing.writes).sum(axis=0)
    worth = np.divide(traffic, sizes, out=np.zeros_like(traffic), where=sizes > 0)
    room = np.array([[tier.capacity] * len(placing.alive) for tier in placing.tiers]).reshape(len(placing.tiers), -1)
    shares = np.zeros((len(placing.items), len(placing.tiers)))
    for item in np.argsort(-worth, kind="stable"):
        alive = placing.alive[:, item]
        moments = alive > 0
        left = 1.0
        for tier in range(len(placing.tiers)):
            fits = np.min(room[tier][moments] / alive[moments], initial=left)
            taken = min(left, max(0.0, fits))
            shares[item, tier] = taken
            room[tier] -= taken * alive
            left -= taken
        if left <= ROUNDING:
            shares[item, np.argmax(shares[item])] += left
    return shares


def least_time(placing: Placing) -> FloatArray:
    """Shares (items x tiers) of the least ``Placing.seconds``, by linear programming."""
    items, tiers, kernels = len(placing.items), placing.tiers, len(placing.reads)
    # Times are in units of a known answer, as the solver's tolerance is fixed.
    scale = placing.seconds(_filled(placing)) or 1.0
    columns = items * len(tiers) + kernels + 1  # shares item by item, then the time of each kernel, then that of all
    bounds = _Rows(columns)
    for number, tier in enumerate(tiers):
        shares = np.arange(number, items * len(tiers), len(tiers))
        for moment in _fullest(placing.alive):
            bounds.add(shares, placing.alive[moment] / (tier.capacity or 1.0), 1.0 if tier.capacity else 0.0)
        if tier.far:
            continue
        busy = tier.seconds(placing.reads, placing.writes) / scale
        for kernel in range(kernels):
            bounds.add([*shares, items * len(tiers) + kernel], [*busy[kernel], -1.0], 0.0)
    waiting = (placing.waiting.T / scale).ravel()
    bounds.add(range(columns), [*waiting, *np.ones(kernels), -1.0], 0.0)
    for beside in placing.beside.values():
        bounds.add([*range(items * len(tiers)), columns - 1], [*(beside / scale).ravel(), -1.0], 0.0)
    whole = _Rows(columns)
    for item in range(items):
        whole.add(range(item * len(tiers), (item + 1) * len(tiers)), np.ones(len(tiers)), 1.0)
    moved = [tier.seconds(placing.reads.sum(axis=0), placing.writes.sum(axis=0)) / scale for tier in tiers]
    cost = np.concatenate([THRIFT * np.array(moved).T.ravel(), np.zeros(kernels), [1.0]])
    return _solved(cost, bounds, whole, (items, len(tiers)))


def _solved(cost: FloatArray, bounds: _Rows, whole: _Rows, shape: tuple[int, int]) -> FloatArray:
    """The shares of the least cost."""
    found = linprog(
        cost, A_ub=bounds.matrix(), b_ub=bounds.limits, A_eq=whole.matrix(), b_eq=whole.limits, method="highs"
    )
    if found.x is None:
        raise HwsimError(f"no placement found: {found.message}")
    best = np.clip(found.x[: shape[0] * shape[1]], 0.0, 1.0).reshape(shape)
    return np.asarray(best / best.sum(axis=1, keepdims=True))


class _Rows:
    """Rows of a sparse system of inequalities or equations under construction."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.limits: list[float] = []
        self._columns: list[IntArray] = []
        self._values: list[FloatArray] = []

    def add(self, columns: Sequence[int] | IntArray, values: Sequence[float] | FloatArray, limit: float) -> None:
        """sum(values · x[columns]) at most, or equal to, ``limit``."""
        given = np.asarray(values, dtype=np.float64)
        self._columns.append(np.asarray(columns, dtype=np.intp)[given != 0])
        self._values.append(given[given != 0])
        self.limits.append(limit)

    def matrix(self) -> csr_array:
        """The coefficients."""
        rows = np.repeat(np.arange(len(self._columns)), [len(columns) for columns in self._columns])
        places = (rows, np.concatenate(self._columns))
        return csr_array(coo_array((np.concatenate(self._values), places), shape=(len(self._columns), self.columns)))


def _fullest(alive: FloatArray) -> list[int]:
    """Moments that neither neighbour exceeds in every item: only these can overfill a tier."""
    edge = np.full((1, alive.shape[1]), -1.0)
    after, before = np.concatenate([alive[1:], edge]), np.concatenate([edge, alive[:-1]])
    covered = (after >= alive).all(axis=1) | ((before >= alive).all(axis=1) & (before > alive).any(axis=1))
    return np.flatnonzero(~covered).tolist()


SOLVERS: Mapping[str, Callable[[Placing], FloatArray]] = {"greedy": greedy, "lp": least_time}
