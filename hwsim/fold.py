"""Folding: identical consecutive layers are kept once with a count, and unfolded again on request.

A run of ops is a repetition when the ops agree in kind, attributes and operand formats, and when the data flows the
same way through each iteration: from inside it, from the one before (the carry), or from outside.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hwsim.graph import Graph, Op, Repeat, Tensor

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
        _unite(graph.ops, run, names)
    kept: list[Op] = []
    repeats: list[Repeat] = []
    position = 0
    for run in runs:
        kept += graph.ops[position : run.start + run.period]
        shared = frozenset(names.of(name) for name in _shared(graph, run))
        repeats.append(Repeat(len(kept) - run.period, len(kept), run.count, shared))
        position = run.start + run.period * run.count
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
        own = {name for op in body for name in (*op.inputs, *op.outputs) if graph.copies[graph.storage(name)] > 1}
        own -= repeat.shared
        for iteration in range(repeat.count):
            new = {name: f"{name}@{iteration}" if iteration else name for name in own | {graph.storage(n) for n in own}}
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


def _runs(graph: Graph) -> list[_Run]:
    """Non-overlapping repetitions from left to right, each the one that covers most ops from its start."""
    keys = _keys(graph)
    later: dict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        later[key].append(index)
    runs: list[_Run] = []
    position = 0
    while position < len(keys):
        run = _best_run(graph, keys, position, later[keys[position]])
        if run is None:
            position += 1
        else:
            runs.append(run)
            position = run.start + run.period * run.count
    return runs


def _best_run(graph: Graph, keys: Sequence[int], start: int, places: Sequence[int]) -> _Run | None:
    best: _Run | None = None
    following = [place for place in places if place >= start + MIN_PERIOD][:MAX_CANDIDATES]
    for place in following:
        period = place - start
        count = _consistent(graph.ops, start, period, _equal(keys, start, period))
        if count > 1 and (best is None or count * period > best.count * best.period):
            best = _Run(start, period, count)
    return best


def _equal(keys: Sequence[int], start: int, period: int) -> int:
    """How many iterations of ``period`` ops from ``start`` have the same keys."""
    if keys[start + period : start + period + MIN_PERIOD] != keys[start : start + MIN_PERIOD]:
        return 1
    body = keys[start : start + period]
    count = 1
    while keys[start + count * period : start + (count + 1) * period] == body:
        count += 1
    return count


def _consistent(ops: Sequence[Op], start: int, period: int, count: int) -> int:
    """How many of ``count`` iterations have the same data flow: inside an iteration, and from the one before."""
    made = [_made(ops, start + k * period, period) for k in range(count)]
    for k in range(1, count):
        for offset in range(period):
            first, second, other = (ops[start + i * period + offset].inputs for i in (0, 1, k))
            for name, after, counterpart in zip(first, second, other, strict=True):
                inside = made[0].get(name) == made[k].get(counterpart)
                if not inside or made[0].get(after) != made[k - 1].get(counterpart):
                    return k
    return count


def _made(ops: Sequence[Op], start: int, period: int) -> dict[str, tuple[int, int]]:
    """Tensors made in an iteration: the op's offset in it and the position among its outputs."""
    return {name: (offset, index) for offset in range(period) for index, name in enumerate(ops[start + offset].outputs)}


def _unite(ops: Sequence[Op], run: _Run, names: _Names) -> None:
    """Name every iteration's tensors as the first one's, except what the iterations hand on."""
    for k in range(1, run.count):
        before = _made(ops, run.start + (k - 1) * run.period, run.period)
        for offset in range(run.period):
            first, other = ops[run.start + offset], ops[run.start + k * run.period + offset]
            for name, counterpart in zip(first.outputs, other.outputs, strict=True):
                names.unite(name, counterpart)
            for name, counterpart in zip(first.inputs, other.inputs, strict=True):
                if counterpart not in before:
                    names.unite(name, counterpart)


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
        name
        for run in runs
        for op in graph.ops[run.start + run.period : run.start + run.period * run.count]
        for name in op.outputs
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
