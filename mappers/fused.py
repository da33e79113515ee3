"""The mapper `fused`: elementwise and epilogue fusion as an inductor-like compiler does, replayed from a graph.

Pointwise ops, reductions over the same rows and copies are joined; a matrix product or convolution takes the pointwise
ops on its result as its epilogue. An op joins a group only where no other kernel must run in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeAlias

from hwsim.device import Device
from hwsim.graph import Graph, Kind, Op, Repeat, Structure
from hwsim.mapper import Launch, Policy, Schedule
from hwsim.mappers.kernels import Group, folded, schedule_groups

POINTWISE = frozenset({Kind.ELEMENTWISE, Kind.COPY, Kind.FILL, Kind.RANDOM, Kind.WRITE})
ROWWISE = frozenset({Kind.REDUCE, Kind.SOFTMAX, Kind.NORM})
WITH_EPILOGUE = frozenset({Kind.MATMUL, Kind.CONV})
WITH_FOLLOWERS = POINTWISE | ROWWISE | frozenset({Kind.GATHER})


Space: TypeAlias = "tuple[int, int | None]"
"""The elements that an op walks over, and their rows where it works along rows."""


class Fused:
    """Groups ops greedily in program order, inside each repetition."""

    name = "fused"
    launch = Launch.GRAPH

    def schedule(self, graph: Graph, device: Device, policy: Policy) -> Schedule:
        """Fused kernels, launched from a recorded graph."""
        graph = folded(graph)
        return schedule_groups(graph, self.groups(graph), device, policy, self.launch)

    def groups(self, graph: Graph) -> tuple[Group, ...]:
        """The ops of each kernel of a folded graph."""
        return _groups(graph.structure, _ranked(graph))


def _ranked(graph: Graph) -> tuple[Space, ...]:
    """The space of each op, a size given by its rank among all: fusion compares sizes and does not calculate with them,
    so that cases whose sizes compare alike are grouped alike."""
    elements = graph.elements
    spaces = [_space(elements, op) for op in graph.ops]
    sizes = {0, *[walked for walked, _ in spaces], *[rows for _, rows in spaces if rows is not None]}
    rank = {size: place for place, size in enumerate(sorted(sizes))}
    return tuple([(rank[walked], None if rows is None else rank[rows]) for walked, rows in spaces])


def _space(elements: Mapping[str, int], op: Op) -> Space:
    if op.kind is Kind.VIEW:
        return 0, None
    if op.kind in ROWWISE:
        rows = op.size("rows")
        return rows * op.size("cols"), rows
    outputs = op.outputs
    return elements[outputs[0]] if len(outputs) == 1 else max([elements[name] for name in outputs], default=0), None


@lru_cache(maxsize=256)
def _groups(structure: Structure, spaces: tuple[Space, ...]) -> tuple[Group, ...]:
    spans = _spans(structure.repeats, len(structure.ops))
    return tuple(group for span in spans for group in _fuse(structure, spaces, span))


def _spans(repeats: tuple[Repeat, ...], ops: int) -> Iterator[range]:
    """Stretches of ops that fusion may not leave: the repeated bodies and what lies between them."""
    position = 0
    for repeat in repeats:
        yield range(position, repeat.start)
        yield range(repeat.start, repeat.stop)
        position = repeat.stop
    yield range(position, ops)


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


def _fuse(structure: Structure, spaces: tuple[Space, ...], span: range) -> list[Group]:
    groups: list[_Open] = []
    maker: dict[str, _Open] = {}
    for turn, index in enumerate(span):
        op, space = structure.ops[index], spaces[index]
        if op.kind is Kind.VIEW:
            continue
        sources = {id(maker[s]): maker[s] for s in map(structure.storages.__getitem__, op.inputs) if s in maker}
        group = _joinable(op, space, list(sources.values()))
        absorbed = _absorbable(op, space, list(sources.values()), group)
        if group is None:
            group = _opened(op, space, turn)
            groups.append(group)
        elif not group.read:
            group.place = turn
        for other in absorbed:
            group.ops += other.ops
            group.rows = group.rows or other.rows
            groups.remove(other)
            maker |= {storage: group for storage, made_by in maker.items() if made_by is other}
        _add(op, space, index, group)
        for source in sources.values():
            source.read = source.read or (source is not group and source not in absorbed)
        for name in op.outputs:
            maker[structure.storages[name]] = group
    return [Group(tuple(sorted(group.ops))) for group in sorted(groups, key=lambda group: group.place)]


def _absorbable(op: Op, space: Space, sources: list[_Open], group: _Open | None) -> list[_Open]:
    """Pointwise groups that nothing else reads and that ``op`` needs: they are computed where they are needed.

    A copy that joins tensors also takes in what makes its parts.
    """
    if op.kind not in POINTWISE or (group is not None and group.read):
        return []
    elements, _ = space
    return [
        source
        for source in sources
        if source is not group
        and not (source.read or source.closed or source.epilogue_only or source.rows)
        and (source.elements == elements or (op.kind is Kind.COPY and group is None and source.elements < elements))
    ]


def _opened(op: Op, space: Space, turn: int) -> _Open:
    closed = op.kind not in WITH_FOLLOWERS | WITH_EPILOGUE
    return _Open([], space[0], None, op.kind in WITH_EPILOGUE, turn, closed=closed)


def _add(op: Op, space: Space, index: int, group: _Open) -> None:
    group.ops.append(index)
    if op.kind in ROWWISE:
        elements, group.rows = space
        group.elements = max(group.elements, elements)


def _joinable(op: Op, space: Space, sources: list[_Open]) -> _Open | None:
    """The source group that ``op`` may join: the latest, if shapes agree and the order of kernels stays valid."""
    if op.kind not in POINTWISE | ROWWISE or not sources:
        return None
    group = max(sources, key=lambda source: source.place)
    if group.closed or (group.epilogue_only and op.kind in ROWWISE):
        return None
    if not _same_space(space, group):
        return None
    others_before = all(other is group or other.place < group.place for other in sources)
    return group if not group.read or others_before else None


def _same_space(space: Space, group: _Open) -> bool:
    """Whether the op walks over the group's elements (a broadcast or a row result counts as walking over them)."""
    elements, rows = space
    if rows is not None:
        return elements == group.elements and group.rows in (None, rows)
    return elements == group.elements or (group.rows is not None and elements == group.rows)
