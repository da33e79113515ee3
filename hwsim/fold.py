"""Folding: identical consecutive layers are kept once with a count, and unfolded again on request.

A run of ops is a repetition when the ops agree in kind, attributes and operand formats, and when the data flows the
same way through each iteration: from inside it, from the one before (the carry), or from outside. Weights, buffers and
states must be as many as the folded graph says, through whatever views the ops reach them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from hwsim.graph import RESIDENT, Graph, Op, Repeat, Tensor

MIN_PERIOD = 3  # ops; shorter runs gain nothing
MAX_CANDIDATES = 48  # periods tried from one position


def fold(graph: Graph) -> Graph:
    """The same graph with every repetition kept once; a graph that is folded already is returned as it is."""
    if graph.repeats:
        return graph
    runs = _runs(graph)
    if not runs:
        return graph
    names = _Names()
    for run in runs:
        _unite(graph, run, names)
    kept: list[Op] = []
    repeats: list[Repeat] = []
    position = 0
    for run in runs:
        kept += graph.ops[position : run.start + run.period]
        shared = frozenset(names.of(name) for name in _shared(graph, run))
        repeats.append(Repeat(len(kept) - run.period, len(kept), run.count, shared))
        position = run.start + run.length
    kept += graph.ops[position:]
    ops = tuple(_renamed(op, names) for op in kept)
    return replace(graph, ops=ops, repeats=tuple(repeats), tensors=_kept_tensors(graph, runs, names))


def unfold(graph: Graph) -> Graph:
    """Every iteration written out; tensors that exist once per iteration get the suffix ``@k`` from the second on."""
    tensors = dict(graph.tensors)
    ops: list[Op] = []
    position = 0
    for repeat in graph.repeats:
        ops += graph.ops[position : repeat.start]
        body = graph.ops[repeat.start : repeat.stop]
        shared = repeat.shared | {graph.storage(name) for name in repeat.shared}
        named = {name for op in body for name in (*op.inputs, *op.outputs) if graph.copies[graph.storage(name)] > 1}
        own = (named | {graph.storage(name) for name in named}) - shared
        for iteration in range(repeat.count):
            new = {name: f"{name}@{iteration}" if iteration else name for name in own}
            tensors |= {to: _moved(graph.tensors[name], to, new) for name, to in new.items()}
            ops += [_mapped(op, new) for op in body]
        position = repeat.stop
    ops += graph.ops[position:]
    return replace(graph, ops=tuple(ops), tensors=tensors, repeats=())


@dataclass(frozen=True, slots=True)
class _Run:
    start: int
    period: int
    count: int

    @property
    def length(self) -> int:
        """Ops that it covers."""
        return self.period * self.count

    def names(self, ops: Sequence[Op]) -> Iterator[tuple[str, ...]]:
        """The tensor at each place of the body, in every iteration."""
        for offset in range(self.period):
            same = ops[self.start + offset : self.start + self.length : self.period]
            yield from zip(*(op.inputs for op in same), strict=True)
            yield from zip(*(op.outputs for op in same), strict=True)


class _Names:
    """Which tensor names stand for the same one in different iterations (disjoint sets; the first seen leads)."""

    def __init__(self) -> None:
        self._leader: dict[str, str] = {}

    def of(self, name: str) -> str:
        leader = self._leader.get(name, name)
        while leader != self._leader.get(leader, leader):
            leader = self._leader[leader]
        return leader

    def unite(self, first: str, other: str) -> None:
        self._leader[self.of(other)] = self.of(first)


class _Residents:
    """Which weights, buffers and states one name may stand for, given the runs that are settled.

    `Structure.copies` counts a name as often as the longest run over it has iterations. So each run needs at every
    place one storage for all its iterations or another for each, and of sets that meet, one must contain the others.
    """

    def __init__(self, graph: Graph) -> None:
        self._ops = graph.ops
        storages = graph.storages
        self._resident = {name: at for name, at in storages.items() if graph.tensors[at].role in RESIDENT}
        self._formats = {at: replace(graph.tensors[at], name="") for at in self._resident.values()}
        self._sets: dict[str, frozenset[str]] = {}

    def longest(self, run: _Run) -> _Run:
        """``run`` with as many of its iterations as are counted right."""
        places = self._places(run)
        fitting = (count for count in range(run.count, 1, -1) if self._united(places, count) is not None)
        return replace(run, count=next(fitting, 1))

    def settle(self, run: _Run) -> None:
        """Hold later runs to the sets of this one."""
        self._sets |= self._united(self._places(run), run.count) or {}

    def _places(self, run: _Run) -> set[tuple[str, ...]]:
        """The storages that the iterations of ``run`` find at each place that has a resident one in any."""
        found = (tuple(self._resident.get(name, "") for name in names) for names in run.names(self._ops))
        return {storages for storages in found if any(storages)}

    def _united(self, places: Iterable[tuple[str, ...]], count: int) -> dict[str, frozenset[str]] | None:
        """The set of each storage that differs between ``count`` iterations; None where it would be miscounted."""
        shared: set[str] = set()
        united: dict[str, frozenset[str]] = {}
        for storages in {storages[:count] for storages in places}:
            new = frozenset(storages)
            if len(new) == 1:
                shared |= new
                continue
            met = {new, *(united.get(name, self._sets.get(name, new)) for name in new)}
            whole = max(met, key=len)
            alike = len({self._formats.get(name) for name in new}) == 1  # what is no resident has none
            if not alike or len(new) < count or not all(one <= whole for one in met):
                return None
            united |= dict.fromkeys(whole, whole)
        return None if shared & united.keys() else united


def _runs(graph: Graph) -> list[_Run]:
    """Non-overlapping repetitions from left to right, each the one that covers most ops from its start."""
    keys = _keys(graph)
    later: dict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        later[key].append(index)
    residents = _Residents(graph)
    runs: list[_Run] = []
    position = 0
    while position < len(keys):
        run = _best_run(graph, keys, position, later[keys[position]], residents)
        if run is None:
            position += 1
        else:
            runs.append(run)
            residents.settle(run)
            position = run.start + run.length
    return runs


def _best_run(
    graph: Graph, keys: Sequence[int], start: int, places: Sequence[int], residents: _Residents
) -> _Run | None:
    following = [place for place in places if place >= start + MIN_PERIOD][:MAX_CANDIDATES]
    alike = (_Run(start, place - start, _equal(keys, start, place - start)) for place in following)
    flowing = (replace(run, count=_consistent(graph.ops, run)) for run in alike if run.count > 1)
    fitting = (residents.longest(run) for run in flowing if run.count > 1)
    return max((run for run in fitting if run.count > 1), key=lambda run: run.length, default=None)


def _equal(keys: Sequence[int], start: int, period: int) -> int:
    """How many iterations of ``period`` ops from ``start`` have the same keys."""
    if keys[start + period : start + period + MIN_PERIOD] != keys[start : start + MIN_PERIOD]:
        return 1
    body = keys[start : start + period]
    count = 1
    while keys[start + count * period : start + (count + 1) * period] == body:
        count += 1
    return count


def _consistent(ops: Sequence[Op], run: _Run) -> int:
    """How many iterations of ``run`` have the same data flow: inside an iteration, and from the one before."""
    made = [_made(ops, run.start + k * run.period, run.period) for k in range(run.count)]
    for k in range(1, run.count):
        for offset in range(run.period):
            first, second, other = (ops[run.start + i * run.period + offset].inputs for i in (0, 1, k))
            for name, after, counterpart in zip(first, second, other, strict=True):
                inside = made[0].get(name) == made[k].get(counterpart)
                if not inside or made[0].get(after) != made[k - 1].get(counterpart):
                    return k
    return run.count


def _made(ops: Sequence[Op], start: int, period: int) -> dict[str, tuple[int, int]]:
    """Tensors made in an iteration: the op's offset in it and the position among its outputs."""
    return {name: (offset, index) for offset in range(period) for index, name in enumerate(ops[start + offset].outputs)}


def _unite(graph: Graph, run: _Run, names: _Names) -> None:
    """Name every iteration's tensors as the first one's, except what the iterations hand on."""
    ops = graph.ops
    for k in range(1, run.count):
        before = _made(ops, run.start + (k - 1) * run.period, run.period)
        for offset in range(run.period):
            first, other = ops[run.start + offset], ops[run.start + k * run.period + offset]
            for name, counterpart in zip(first.outputs, other.outputs, strict=True):
                names.unite(name, counterpart)
            for name, counterpart in zip(first.inputs, other.inputs, strict=True):
                if counterpart not in before:
                    names.unite(name, counterpart)
    for place in run.names(ops):
        storage, *others = (graph.storage(name) for name in place)
        if graph.tensors[storage].role in RESIDENT:  # its views may have been made anywhere
            for counterpart in others:
                names.unite(storage, counterpart)


def _shared(graph: Graph, run: _Run) -> Iterable[str]:
    """Tensors from outside that all iterations read."""
    for offset in range(run.period):
        first, second = graph.ops[run.start + offset], graph.ops[run.start + run.period + offset]
        for name, counterpart in zip(first.inputs, second.inputs, strict=True):
            if name == counterpart:
                yield name
            elif graph.storage(name) == graph.storage(counterpart):
                yield graph.storage(name)


def _kept_tensors(graph: Graph, runs: Sequence[_Run], names: _Names) -> dict[str, Tensor]:
    """Tensors whose name leads its set; the others are iterations of these."""
    dropped = {
        name for run in runs for op in graph.ops[run.start + run.period : run.start + run.length] for name in op.outputs
    }
    kept: dict[str, Tensor] = {}
    for name, tensor in graph.tensors.items():
        if name in dropped and names.of(name) != name:
            continue
        if names.of(name) == name:
            base = None if tensor.base is None else names.of(tensor.base)
            kept[name] = replace(tensor, base=base) if base != tensor.base else tensor
    return kept


def _keys(graph: Graph) -> list[int]:
    """A number per op, equal for ops that cost the same."""
    seen: dict[object, int] = {}
    return [seen.setdefault(_signature(op, graph), len(seen)) for op in graph.ops]


def _signature(op: Op, graph: Graph) -> object:
    operands = tuple(
        (tensor.shape, tensor.dtype, tensor.role, tensor.distinct)
        for tensor in (graph.tensors[name] for name in (*op.inputs, *op.outputs))
    )
    return (
        op.kind,
        op.source,
        tuple(sorted(op.attrs.items(), key=lambda item: item[0])),
        operands,
        len(op.inputs),
    )


def _renamed(op: Op, names: _Names) -> Op:
    return replace(
        op,
        inputs=tuple(names.of(name) for name in op.inputs),
        outputs=tuple(names.of(name) for name in op.outputs),
    )


def _mapped(op: Op, new: dict[str, str]) -> Op:
    return replace(
        op,
        inputs=tuple(new.get(name, name) for name in op.inputs),
        outputs=tuple(new.get(n, n) for n in op.outputs),
    )


def _moved(tensor: Tensor, name: str, new: dict[str, str]) -> Tensor:
    base = tensor.base if tensor.base is None else new.get(tensor.base, tensor.base)
    return replace(tensor, name=name, base=base)
