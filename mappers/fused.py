"""The mapper `fused`: elementwise and epilogue fusion as an inductor-like compiler does, replayed from a graph.

Pointwise ops, reductions over the same rows and copies are joined; a matrix product or convolution takes the pointwise
ops on its result as its epilogue. An op joins a group only where no other kernel must run in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hwsim.device import Device
from hwsim.graph import Graph, Kind, Op
from hwsim.mapper import Launch, Policy, Schedule
from hwsim.mappers.kernels import Group, folded, schedule_groups
from hwsim.sizes import product

POINTWISE = frozenset({Kind.ELEMENTWISE, Kind.COPY, Kind.FILL, Kind.RANDOM, Kind.WRITE})
ROWWISE = frozenset({Kind.REDUCE, Kind.SOFTMAX, Kind.NORM})
WITH_EPILOGUE = frozenset({Kind.MATMUL, Kind.CONV})
WITH_FOLLOWERS = POINTWISE | ROWWISE | frozenset({Kind.GATHER})


class Fused:
    """Groups ops greedily in program order, inside each repetition."""

    name = "fused"

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Fused kernels, launched from a recorded graph."""
        graph = folded(graph)
        groups = [group for span in _spans(graph) for group in _fuse(graph, span)]
        return schedule_groups(graph, groups, device, policy, Launch.GRAPH)


def _spans(graph: Graph) -> Iterator[range]:
    """Stretches of ops that fusion may not leave: the repeated bodies and what lies between them."""
    position = 0
    for repeat in graph.repeats:
        yield range(position, repeat.start)
        yield range(repeat.start, repeat.stop)
        position = repeat.stop
    yield range(position, len(graph.ops))


@dataclass(slots=True)
class _Open:
    """A group that may still grow. ``place`` is its turn among the groups; ``read`` tells whether another reads it."""

    ops: list[int]
    elements: int
    rows: int | None
    epilogue_only: bool
    place: int
    read: bool = False
    closed: bool = False
    storages: set[str] = field(default_factory=set)


def _fuse(graph: Graph, span: range) -> list[Group]:
    groups: list[_Open] = []
    maker: dict[str, _Open] = {}
    for turn, index in enumerate(span):
        op = graph.ops[index]
        if op.kind is Kind.VIEW:
            continue
        sources = {id(maker[s]): maker[s] for s in map(graph.storage, op.inputs) if s in maker}
        group = _joinable(graph, op, list(sources.values()))
        absorbed = _absorbable(graph, op, list(sources.values()), group)
        if group is None:
            group = _opened(graph, op, turn)
            groups.append(group)
        elif not group.read:
            group.place = turn
        for other in absorbed:
            group.ops += other.ops
            group.rows = group.rows or other.rows
            groups.remove(other)
            maker |= {storage: group for storage, made_by in maker.items() if made_by is other}
        _add(graph, op, index, group)
        for source in sources.values():
            source.read = source.read or (source is not group and source not in absorbed)
        for name in op.outputs:
            maker[graph.storage(name)] = group
    return [Group(tuple(sorted(group.ops))) for group in sorted(groups, key=lambda group: group.place)]


def _absorbable(graph: Graph, op: Op, sources: list[_Open], group: _Open | None) -> list[_Open]:
    """Pointwise groups that nothing else reads and that ``op`` needs: they are computed where they are needed.

    A copy that joins tensors also takes in what makes its parts.
    """
    if op.kind not in POINTWISE or (group is not None and group.read):
        return []
    elements = _elements(graph, op)
    return [
        source
        for source in sources
        if source is not group
        and not (source.read or source.closed or source.epilogue_only or source.rows)
        and (source.elements == elements or (op.kind is Kind.COPY and group is None and source.elements < elements))
    ]


def _opened(graph: Graph, op: Op, turn: int) -> _Open:
    closed = op.kind not in WITH_FOLLOWERS | WITH_EPILOGUE
    return _Open([], _elements(graph, op), None, op.kind in WITH_EPILOGUE, turn, closed=closed)


def _add(graph: Graph, op: Op, index: int, group: _Open) -> None:
    group.ops.append(index)
    if op.kind in ROWWISE:
        group.rows = op.size("rows")
        group.elements = max(group.elements, op.size("rows") * op.size("cols"))


def _joinable(graph: Graph, op: Op, sources: list[_Open]) -> _Open | None:
    """The source group that ``op`` may join: the latest, if shapes agree and the order of kernels stays valid."""
    if op.kind not in POINTWISE | ROWWISE or not sources:
        return None
    group = max(sources, key=lambda source: source.place)
    if group.closed or (group.epilogue_only and op.kind in ROWWISE):
        return None
    if not _same_space(graph, op, group):
        return None
    others_before = all(other is group or other.place < group.place for other in sources)
    return group if not group.read or others_before else None


def _same_space(graph: Graph, op: Op, group: _Open) -> bool:
    """Whether the op walks over the group's elements (a broadcast or a row result counts as walking over them)."""
    if op.kind in ROWWISE:
        rows, cols = op.size("rows"), op.size("cols")
        return rows * cols == group.elements and group.rows in (None, rows)
    elements = _elements(graph, op)
    return elements == group.elements or (group.rows is not None and elements == group.rows)


def _elements(graph: Graph, op: Op) -> int:
    """Elements of the op's iteration space: its largest result."""
    if op.kind in ROWWISE:
        return op.size("rows") * op.size("cols")
    sizes = [product(graph.tensors[name].shape) for name in op.outputs]
    return max((size for size in sizes if isinstance(size, int)), default=0)
