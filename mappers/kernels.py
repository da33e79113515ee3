"""From groups of ops to a schedule: the part that all mappers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hwsim.device import Device
from hwsim.fold import fold
from hwsim.graph import Attribute, Graph, Kind, Op, Repeat, Role
from hwsim.liveness import usage
from hwsim.mapper import Kernel, Launch, Policy, Schedule
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


def schedule_groups(graph: Graph, groups: Sequence[Group], device: Device, policy: Policy, launch: Launch) -> Schedule:
    """A schedule of one kernel per group; ``graph`` is folded and no group crosses the edge of a repetition."""
    absent = internal_storages(graph, groups)
    works = [_joined(graph, group, absent) for group in groups]
    counts = [graph.counts[group.ops[0]] for group in groups]
    use = usage(graph, absent)
    placed = place(graph, zip(works, counts, strict=True), device.card, use, policy)
    kernels = []
    for group, work in zip(groups, works, strict=True):
        main = _main(graph, group)
        name, attrs = _label(graph, group, main), _described(graph, main, group)
        kernels.append(Kernel(name, main.kind, attrs, work, placed.placement.flows(work), main.path, launch))
    resident = sum(use.resident.values())
    return Schedule(
        tuple(kernels),
        _kernel_repeats(graph, groups),
        placed.placement,
        placed.peak,
        {**use.resident, "activation": use.peak_activations},
        tuple(resident + max(use.alive[index] for index in group.ops) for group in groups),
        placed.notes,
    )


def folded(graph: Graph) -> Graph:
    """The folded graph; mappers start from it so that folded and unfolded graphs give the same schedule."""
    return fold(graph)


def internal_storages(graph: Graph, groups: Sequence[Group]) -> frozenset[str]:
    """Storages that live and die inside one group: they stay in registers."""
    group_of = {index: number for number, group in enumerate(groups) for index in group.ops}
    touched: dict[str, set[int]] = {}
    for index, op in enumerate(graph.ops):
        if op.kind is Kind.VIEW:
            continue
        for name in (*op.inputs, *op.outputs):
            touched.setdefault(graph.storage(name), set()).add(group_of[index])
    made = {graph.storage(name) for op in graph.ops for name in op.outputs if op.kind is not Kind.VIEW}
    # What nobody reads is a result, or what an iteration hands on to the next one.
    read = {graph.storage(name) for op in graph.ops for name in op.inputs if op.kind is not Kind.VIEW}
    return frozenset(
        name
        for name, places in touched.items()
        if len(places) == 1 and name in made & read and graph.tensors[name].role is Role.ACTIVATION
    )


def _joined(graph: Graph, group: Group, absent: frozenset[str]) -> Work:
    """The work of a group: arithmetic added up, every outside operand moved once, nothing moved inside."""
    works = [work_of(graph.ops[index], graph) for index in group.ops]
    if len(works) == 1:
        return works[0]
    made: set[str] = set()
    moved: dict[tuple[str, bool], Access] = {}
    for index, work in zip(group.ops, works, strict=True):
        for access in work.accesses:
            # What the group has written whole it need not read again; a part written in place leaves the rest.
            inside = access.tensor in absent or (access.tensor in made and not access.write)
            key = (access.tensor, access.write)
            if not inside and (key not in moved or moved[key].nbytes < access.nbytes):
                moved[key] = access
        whole = (graph.tensors[name] for name in graph.ops[index].outputs)
        made.update(tensor.name for tensor in whole if tensor.base is None)
    widest = max(works, key=lambda work: (work.matmul_flops, work.flops))
    return Work(
        sum(work.matmul_flops for work in works),
        sum(work.vector_flops for work in works),
        sum(work.special_ops for work in works),
        tuple(moved.values()),
        widest.dtype,
        any(work.unmodelled for work in works),
    )


def _main(graph: Graph, group: Group) -> Op:
    ops = [graph.ops[index] for index in group.ops]
    for kind in MAIN_KINDS:
        for op in ops:
            if op.kind is kind:
                return op
    if len(ops) == 1:
        return ops[0]
    return max(ops, key=lambda op: work_of(op, graph).nbytes)


def _label(graph: Graph, group: Group, main: Op) -> str:
    """`matmul`, or the distinct functions of a fused kernel in order: `matmul+add`."""
    if len(group.ops) == 1:
        return _short(main)
    names = list(dict.fromkeys(_short(graph.ops[index]) for index in group.ops))
    return "+".join(names[:4]) + ("+..." if len(names) > 4 else "")


def _short(op: Op) -> str:
    return op.text("function") or op.text("rule") or str(op.kind)


def _described(graph: Graph, main: Op, group: Group) -> Mapping[str, Attribute]:
    return main.attrs if len(group.ops) == 1 else {**main.attrs, "fused": len(group.ops)}


def _kernel_repeats(graph: Graph, groups: Sequence[Group]) -> tuple[Repeat, ...]:
    repeats = []
    for repeat in graph.repeats:
        inside = [number for number, group in enumerate(groups) if repeat.start <= group.ops[0] < repeat.stop]
        if inside:
            repeats.append(replace(repeat, start=inside[0], stop=inside[-1] + 1))
    return tuple(repeats)
