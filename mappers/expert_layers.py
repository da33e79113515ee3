"""The mixtures of experts among the kernels of a graph, and the order in which all kernels run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from hwsim.graph import Graph, Kind, Role
from hwsim.mappers.kernels import Draft


@dataclass(frozen=True, slots=True)
class Mixture:
    """A layer of experts: its kernels from ``first`` to ``last``, the weights' storages, the rows that are routed.

    ``ahead``: another gate than its own may decide for it, as it is no part of an encoder, which writes no state.
    """

    first: int
    last: int
    storages: tuple[str, ...]
    experts: int
    rows: int
    expert_bytes: float
    ahead: bool
    path: str


def find_mixtures(drawn: Draft) -> tuple[Mixture, ...]:
    """The mixtures in the order of the kernels, those of a repetition once: kernels of one module in a row."""
    found: list[Mixture] = []
    stateful = _first_with_state(drawn)
    for one in _kernels(drawn, stateful):
        if found and found[-1].path == one.path and not set(one.storages) & set(found[-1].storages):
            known = found[-1]
            nbytes, storages = known.expert_bytes + one.expert_bytes, known.storages + one.storages
            found[-1] = replace(known, last=one.last, storages=storages, expert_bytes=nbytes)
        else:
            found.append(one)
    return tuple(found)


def _kernels(drawn: Draft, stateful: int) -> Iterator[Mixture]:
    """Every product over experts as a mixture of its own."""
    graph = drawn.graph
    weights = {graph.storage(op.inputs[1]): op for op in graph.ops if op.kind is Kind.MATMUL and "experts" in op.attrs}
    for number, work in enumerate(drawn.works):
        for access in work.accesses:
            op = weights.get(access.tensor)
            if op is not None and not access.write:
                experts = op.size("experts")
                nbytes = graph.nbytes[access.tensor] / experts
                ahead = number >= stateful
                yield Mixture(number, number, (access.tensor,), experts, op.size("m"), nbytes, ahead, op.path)


def _first_with_state(drawn: Draft) -> int:
    """The first kernel that writes a state; 0 where none does."""
    for number, work in enumerate(drawn.works):
        if any(access.write and access.role is Role.STATE for access in work.accesses):
            return number
    return 0


def all_experts(graph: Graph, mixtures: Iterable[Mixture]) -> frozenset[str]:
    """Storages of experts' weights, also of those that no op reads as their part of the model is done: an encoder."""
    used = frozenset(name for mixture in mixtures for name in mixture.storages)
    shapes = {graph.tensors[name].shape for name in used}
    read = {graph.storage(name) for op in graph.ops for name in op.inputs}
    idle = (tensor for tensor in graph.of_role(Role.WEIGHT) if tensor.name not in read)
    return used | {tensor.name for tensor in idle if tensor.shape in shapes}


def executions(drawn: Draft) -> Iterator[int]:
    """The numbers of the kernels in the order in which they run, repetitions written out."""
    position = 0
    for repeat in drawn.repeats:
        yield from range(position, repeat.start)
        for _ in range(repeat.count):
            yield from range(repeat.start, repeat.stop)
        position = repeat.stop
    yield from range(position, len(drawn.works))
