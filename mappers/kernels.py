"""From groups of ops to a schedule: the part that all mappers share.

What does not depend on the sizes is planned once for a structure and its groups; a schedule then takes little more than
the work of its ops.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from hwsim.device import Device
from hwsim.fold import fold
from hwsim.graph import Attribute, Graph, Kind, Op, Repeat, Role, Structure
from hwsim.liveness import Usage, usage
from hwsim.mapper import Flow, Kernel, Launch, Policy, Schedule
from hwsim.placement import place
from hwsim.work import Access, Work, work_of

# Which op of a fused kernel gives it its kind: the first of these that it contains.
MAIN_KINDS = (
    Kind.MATMUL,
    Kind.CONV,
    Kind.ATTENTION,
    Kind.RECURRENCE,
    Kind.SORT,
    Kind.SCAN,
    Kind.SCATTER,
    Kind.SOFTMAX,
    Kind.NORM,
    Kind.REDUCE,
    Kind.GATHER,
)


@dataclass(frozen=True, slots=True)
class Group:
    """Indices of the ops that one kernel runs, in order."""

    ops: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """The kernels of a graph before anything has a place: the work of each, how often it runs, the bytes of activations
    alive while it does (in the fullest of its runs), and the memory in use altogether."""

    graph: Graph
    works: tuple[Work, ...]
    counts: tuple[int, ...]
    alive: tuple[float, ...]
    repeats: tuple[Repeat, ...]
    use: Usage
    absent: frozenset[str]
    mains: tuple[Op, ...]
    attrs: tuple[Mapping[str, Attribute], ...]
    labels: tuple[str, ...]

    def kernel(self, number: int, flows: tuple[Flow, ...], launch: Launch) -> Kernel:
        """Kernel ``number`` with its traffic."""
        main = self.mains[number]
        return Kernel(self.labels[number], main.kind, self.attrs[number], self.works[number], flows, main.path, launch)

    @property
    def footprint(self) -> dict[str, float]:
        """Resident bytes by role, and those of activations at their most."""
        return {**self.use.resident, "activation": self.use.peak_activations}

    def in_use(self, numbers: Iterable[int], more: float = 0.0) -> tuple[float, ...]:
        """The bytes in use while each of the kernels ``numbers`` runs, with ``more`` than the graph has."""
        resident = sum(self.use.resident.values()) + more
        return tuple([resident + self.alive[number] for number in numbers])


def draft(graph: Graph, groups: Sequence[Group]) -> Draft:
    """One kernel per group; ``graph`` is folded and no group crosses the edge of a repetition."""
    groups = tuple(groups)
    plan = _plan(graph.structure, groups)
    parts = [[work_of(graph.ops[index], graph) for index in group.ops] for group in groups]
    works = tuple([_joined(works, made, plan.absent) for works, made in zip(parts, plan.made, strict=True)])
    mains = tuple(
        [
            graph.ops[group.ops[_widest(works) if main is None else main]]
            for group, works, main in zip(groups, parts, plan.mains, strict=True)
        ]
    )
    if any(map(_makes_nothing, works)):
        mains = tuple([_idle(main) if _makes_nothing(work) else main for main, work in zip(mains, works, strict=True)])
        works = tuple([Work(dtype=work.dtype) if _makes_nothing(work) else work for work in works])
    use = usage(graph, plan.absent)
    alive = tuple([max([use.alive[index] for index in group.ops]) for group in groups])
    attrs = tuple([_described(main, group) for main, group in zip(mains, groups, strict=True)])
    return Draft(graph, works, plan.counts, alive, plan.repeats, use, plan.absent, mains, attrs, plan.labels)


def schedule_groups(graph: Graph, groups: Sequence[Group], device: Device, policy: Policy, launch: Launch) -> Schedule:
    """A schedule of one kernel per group; ``graph`` is folded and no group crosses the edge of a repetition."""
    drawn = draft(graph, groups)
    use = drawn.use
    placed = place(graph, zip(drawn.works, drawn.counts, strict=True), device.card, use, policy)
    flows_of = placed.placement.flows
    return Schedule(
        tuple([drawn.kernel(number, flows_of(work), launch) for number, work in enumerate(drawn.works)]),
        drawn.repeats,
        placed.placement,
        placed.peak,
        drawn.footprint,
        drawn.in_use(range(len(groups))),
        placed.notes,
    )


def folded(graph: Graph) -> Graph:
    """The folded graph; mappers start from it so that folded and unfolded graphs give the same schedule."""
    return fold(graph)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a schedule has whatever the sizes are. Per kernel: how often it runs, its label, where among its ops
    the main one stands (None: where most bytes are moved), and the storages that each of its ops makes."""

    absent: frozenset[str]
    counts: tuple[int, ...]
    labels: tuple[str, ...]
    mains: tuple[int | None, ...]
    made: tuple[tuple[frozenset[str], ...], ...]
    repeats: tuple[Repeat, ...]


@lru_cache(maxsize=256)
def _plan(structure: Structure, groups: tuple[Group, ...]) -> _Plan:
    ops = [[structure.ops[index] for index in group.ops] for group in groups]
    return _Plan(
        internal_storages(structure, groups),
        tuple(structure.counts[group.ops[0]] for group in groups),
        tuple(map(_label, ops)),
        tuple(map(_main, ops)),
        tuple(tuple(frozenset(_made(structure, op)) for op in group) for group in ops),
        _kernel_repeats(structure, groups),
    )


def internal_storages(structure: Structure, groups: Sequence[Group]) -> frozenset[str]:
    """Storages that live and die inside one group: they stay in registers."""
    group_of = {index: number for number, group in enumerate(groups) for index in group.ops}
    touched: dict[str, set[int]] = {}
    made: set[str] = set()
    # What nobody reads is a result, or what an iteration hands on to the next one.
    read: set[str] = set()
    for index, op in enumerate(structure.ops):
        if op.kind is Kind.VIEW:
            continue
        made.update(structure.storages[name] for name in op.outputs)
        read.update(structure.storages[name] for name in op.inputs)
        for name in (*op.inputs, *op.outputs):
            touched.setdefault(structure.storages[name], set()).add(group_of[index])
    return frozenset(
        name
        for name, places in touched.items()
        if len(places) == 1 and name in made & read and structure.tensors[name].role is Role.ACTIVATION
    )


def _made(structure: Structure, op: Op) -> Iterable[str]:
    """The outputs of an op that are no views."""
    return (name for name in op.outputs if structure.tensors[name].base is None)


def _joined(works: Sequence[Work], made_by: Sequence[frozenset[str]], absent: frozenset[str]) -> Work:
    """The work of a group: arithmetic added up, every outside operand moved once, nothing moved inside."""
    if len(works) == 1:
        return works[0]
    made: set[str] = set()
    moved: dict[tuple[str, bool], Access] = {}
    for work, own in zip(works, made_by, strict=True):
        for access in work.accesses:
            tensor, write = access.tensor, access.write
            # What the group has written whole it need not read again; a part written in place leaves the rest.
            if tensor in absent or (tensor in made and not write):
                continue
            other = moved.get((tensor, write))
            if other is None or other.nbytes < access.nbytes:
                moved[tensor, write] = access
        made |= own
    widest = max(works, key=lambda work: (work.matmul_flops, work.flops))
    return Work(
        sum([work.matmul_flops for work in works]),
        sum([work.vector_flops for work in works]),
        sum([work.special_ops for work in works]),
        tuple(moved.values()),
        widest.dtype,
        any(work.unmodelled for work in works),
    )


def _makes_nothing(work: Work) -> bool:
    """Whether all results are empty, as those of a batch of none are: nothing is read for them."""
    return not (work.flops or work.unmodelled or work.write_bytes)


def _idle(op: Op) -> Op:
    """A launch in the place of ``op`` that copies no byte: formulas of kernels are for sizes above zero."""
    return replace(op, kind=Kind.COPY, attrs={"numel": 0, "strided": False})


def _main(ops: Sequence[Op]) -> int | None:
    for kind in MAIN_KINDS:
        for place_of_main, op in enumerate(ops):
            if op.kind is kind:
                return place_of_main
    return 0 if len(ops) == 1 else None


def _widest(works: Sequence[Work]) -> int:
    """Which of the works moves most bytes."""
    return max(range(len(works)), key=lambda number: works[number].nbytes)


def _label(ops: Sequence[Op]) -> str:
    """`matmul`, or the distinct functions of a fused kernel in order: `matmul+add`."""
    names = list(dict.fromkeys(op.text("function") or op.text("rule") or str(op.kind) for op in ops))
    return "+".join(names[:4]) + ("+..." if len(names) > 4 else "")


def _described(main: Op, group: Group) -> Mapping[str, Attribute]:
    return main.attrs if len(group.ops) == 1 else {**main.attrs, "fused": len(group.ops)}


def _kernel_repeats(structure: Structure, groups: Sequence[Group]) -> tuple[Repeat, ...]:
    repeats = []
    for repeat in structure.repeats:
        inside = [number for number, group in enumerate(groups) if repeat.start <= group.ops[0] < repeat.stop]
        if inside:
            repeats.append(replace(repeat, start=inside[0], stop=inside[-1] + 1))
    return tuple(repeats)
