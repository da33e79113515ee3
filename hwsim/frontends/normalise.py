"""Rewrites that bring a recorded graph to the form in which mappers expect it.

Each rule takes a graph and gives one of the same meaning: fewer copies, the same matrix FLOPs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from hwsim.graph import MATMUL_KINDS, Graph, Kind, Op, Role, Tensor
from hwsim.sizes import Size, combine, product

Rule: TypeAlias = Callable[[Graph], Graph]


def normalised(graph: Graph) -> Graph:
    """``graph`` after all rewrites."""
    for rule in RULES:
        graph = rule(graph)
    return graph


def share_kv_heads(graph: Graph) -> Graph:
    """Attention whose keys and values were repeated for the query heads reads them as they were (GQA)."""
    makers = _makers(graph)
    ops = []
    for op in graph.ops:
        if op.kind is Kind.ATTENTION:
            first = 1 if op.flag("backward") else 0
            found = [_unrepeated(graph, makers, name) for name in op.inputs[first + 1 : first + 3]]
            repeats = {repeat for _, repeat in found}
            if len(repeats) == 1 and repeats != {1}:
                inputs = (*op.inputs[: first + 1], *(name for name, _ in found), *op.inputs[first + 3 :])
                kv_heads = combine("//", _size(op, "kv_heads"), *repeats)
                op = replace(op, inputs=inputs, attrs={**op.attrs, "kv_heads": kv_heads})
        ops.append(op)
    return replace(graph, ops=tuple(ops))


def append_to_caches(graph: Graph) -> Graph:
    """`cat` of a cache with new rows writes these rows into the cache, which then is as long as the result.

    A cache is a state whose concatenation leaves the graph, or any input whose concatenation attention reads.
    """
    attended = _attended(graph)
    tensors = dict(graph.tensors)
    names: dict[str, str] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if op.source != "cat" or not _is_append(graph, op, attended):
            ops.append(op)
            continue
        cache, *added = op.inputs
        result = op.outputs[0]
        names[result] = cache
        tensors[cache] = replace(graph.tensors[cache], shape=graph.tensors[result].shape, role=Role.STATE)
        for index, rows in enumerate(added):
            part = f"{cache}.rows{index or ''}"
            tensors[part] = replace(graph.tensors[rows], name=part, role=Role.STATE, base=cache, distinct=None)
            attrs = {"numel": graph.tensors[rows].numel}
            ops.append(replace(op, kind=Kind.WRITE, inputs=(rows,), outputs=(part,), attrs=attrs))
    return renamed(replace(graph, tensors=tensors, ops=tuple(ops)), names) if names else graph


def update_in_place(graph: Graph) -> Graph:
    """A fresh result that is only copied over a whole state is that state, written by the op that made it."""
    makers = {name: index for index, op in enumerate(graph.ops) for name in op.outputs}
    readers: dict[str, list[int]] = {}
    for index, op in enumerate(graph.ops):
        for name in {graph.storage(name) for name in op.inputs}:
            readers.setdefault(name, []).append(index)
    names: dict[str, str] = {}
    for index, op in enumerate(graph.ops):
        if op.kind is Kind.WRITE and len(op.inputs) == len(op.outputs) == 1 and op.inputs[0] in makers:
            fresh, state = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
            made = makers[fresh.name]
            alike = fresh.base is state.base is None and (fresh.shape, fresh.dtype) == (state.shape, state.dtype)
            between = any(made < reader < index for reader in readers.get(state.name, []))
            if alike and state.role is Role.STATE and readers[fresh.name] == [index] and not between:
                names[fresh.name] = state.name
    if not names:
        return graph
    kept = tuple(op for op in graph.ops if not (op.kind is Kind.WRITE and op.inputs[0] in names))
    return renamed(replace(graph, ops=kept), names)


def drop_dead(graph: Graph) -> Graph:
    """Without ops whose results nothing reads, except matrix work, which a run would do nevertheless."""
    live_names: set[str] = set()
    live_storages = {t.name for t in graph.tensors.values() if t.role is not Role.ACTIVATION and t.base is None}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if op.kind is Kind.VIEW:
            live = any(name in live_names or graph.tensors[name].role is Role.OUTPUT for name in op.outputs)
        else:
            live = op.kind in MATMUL_KINDS or any(graph.storage(name) in live_storages for name in op.outputs)
        if live:
            kept.append(op)
            live_names.update(op.inputs, op.outputs)
            live_storages.update(graph.storage(name) for name in op.inputs)
    return _without_unused_tensors(replace(graph, ops=tuple(reversed(kept))))


def renamed(graph: Graph, names: Mapping[str, str]) -> Graph:
    """``graph`` with the tensors in ``names`` called by their new names; a new name that exists takes the place of
    the old one."""

    def new(name: str) -> str:
        return names.get(name, name)

    tensors: dict[str, Tensor] = {}
    for name, tensor in graph.tensors.items():
        if name in names and names[name] in graph.tensors:
            continue
        base = None if tensor.base is None else new(tensor.base)
        role = graph.tensors[base].role if base is not None and base in graph.tensors else tensor.role
        tensors[new(name)] = replace(tensor, name=new(name), base=base, role=role)
    ops = tuple(
        replace(op, inputs=tuple(map(new, op.inputs)), outputs=tuple(map(new, op.outputs)))
        if any(name in names for name in (*op.inputs, *op.outputs))
        else op
        for op in graph.ops
    )
    return replace(graph, tensors=tensors, ops=ops)


RULES: tuple[Rule, ...] = (share_kv_heads, append_to_caches, update_in_place, drop_dead)


def _makers(graph: Graph) -> dict[str, Op]:
    """The op that made each tensor first."""
    makers: dict[str, Op] = {}
    for op in graph.ops:
        for name in op.outputs:
            makers.setdefault(name, op)
    return makers


def _unrepeated(graph: Graph, makers: Mapping[str, Op], name: str) -> tuple[str, Size]:
    """The tensor behind ``name`` before its heads were repeated, and how often they were; (name, 1) if never."""
    wanted = graph.tensors[name].shape
    at: str = name
    repeats: Size = 1
    while at in makers and (repeats == 1 or len(graph.tensors[at].shape) != len(wanted)):
        maker = makers[at]
        if maker.kind not in (Kind.VIEW, Kind.COPY) or len(maker.inputs) != 1:
            break
        repeats = combine("*", repeats, _expansion(graph.tensors[maker.inputs[0]], graph.tensors[at]))
        at = maker.inputs[0]
    shape = graph.tensors[at].shape
    matches = len(shape) == len(wanted) >= 3 and combine("*", shape[-3], repeats) == wanted[-3]
    return (at, repeats) if matches else (name, 1)


def _expansion(source: Tensor, result: Tensor) -> Size:
    """How often broadcasting repeated ``source`` in ``result``."""
    if len(source.shape) != len(result.shape):
        return 1
    return product(after for before, after in zip(source.shape, result.shape, strict=True) if before == 1)


def _attended(graph: Graph) -> frozenset[str]:
    """Keys and values of attention, and what they are views of."""
    makers = _makers(graph)
    names: set[str] = set()
    for op in graph.ops:
        if op.kind is Kind.ATTENTION and not op.flag("backward"):
            for name in op.inputs[1:3]:
                while name in makers and makers[name].kind is Kind.VIEW and makers[name].inputs:
                    names.add(name)
                    name = makers[name].inputs[0]
                names.add(name)
    return frozenset(names)


def _is_append(graph: Graph, op: Op, attended: frozenset[str]) -> bool:
    """Whether a `cat` grows a cache: along a dimension that is not the batch, and kept or attended to."""
    cache, result = graph.tensors[op.inputs[0]], graph.tensors[op.outputs[0]]
    if cache.base is not None or len(cache.shape) != len(result.shape) or cache.shape[:1] != result.shape[:1]:
        return False
    kept = result.role is Role.OUTPUT and cache.role is Role.STATE
    return kept or (result.name in attended and cache.role in (Role.STATE, Role.INPUT))


def _without_unused_tensors(graph: Graph) -> Graph:
    used = {name for op in graph.ops for name in (*op.inputs, *op.outputs)}
    used |= {base for base in (graph.tensors[name].base for name in used) if base is not None}
    lasting = (Role.WEIGHT, Role.BUFFER, Role.STATE, Role.INPUT, Role.OUTPUT)
    tensors = {
        name: tensor
        for name, tensor in graph.tensors.items()
        if name in used or (tensor.role in lasting and tensor.base is None)
    }
    return replace(graph, tensors=tensors)


def _size(op: Op, name: str) -> Size:
    value = op.attrs[name]
    assert not isinstance(value, str | float | tuple)
    return value
