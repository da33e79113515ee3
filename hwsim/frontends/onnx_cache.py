"""Caches and states in ONNX graphs: what comes in as a graph input and goes out, longer or changed, as an output.

Such a pair is one storage with the role of a state, and only the new rows are charged as written.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwsim.frontends.onnx_node import Node, Shape, rule
from hwsim.graph import Kind


@dataclass(frozen=True, slots=True)
class Append:
    """Rows of the value ``new`` behind those of ``past`` ("": none), together output ``present`` of ``shape``."""

    past: str
    new: str
    present: int
    shape: Shape
    rows: Shape


def is_cache(node: Node, past: str, present: int) -> bool:
    """Whether ``past`` (if any) comes from outside and output ``present`` goes there."""
    draft = node.draft
    comes = not past or past in draft.inputs
    return comes and node.makes(present) and node.proto.output[present] in draft.outputs


def append(node: Node, cache: Append) -> None:
    """Only the rows are written; the past is the front part of the present."""
    draft = node.draft
    output = node.proto.output[cache.present]
    node.give(cache.present, cache.shape, draft.values[cache.new].dtype)
    rows = node.inner(f"rows of {output}", cache.rows, draft.values[output].dtype or "")
    for name in (cache.past, rows):
        if name:
            draft.state(name)
            draft.bases[name] = output
    draft.state(output)
    node.emit(Kind.WRITE, (cache.new,), (rows,), numel=prod(cache.rows))


def joined(node: Node, cache: Append) -> list[str]:
    """What a reader of past and new rows reads: the cache, the copy that joins them, or both where they lie."""
    parts = [name for name in (cache.past, cache.new) if name]
    if not node.makes(cache.present):
        return parts
    output = node.proto.output[cache.present]
    if is_cache(node, cache.past, cache.present):
        append(node, cache)
    else:
        node.give(cache.present, cache.shape, node.draft.values[cache.new].dtype)
        node.emit(Kind.COPY, parts, (output,), numel=prod(cache.shape), strided=False)
    return [output]


def keep_state(node: Node, past: int, present: int, shape: Shape) -> None:
    """A state of fixed size that the operator overwrites."""
    node.give(present, shape, node.dtype(past if node.has(past) else 0))
    if node.has(past) and is_cache(node, node.name(past), present):
        for name in (node.name(past), node.proto.output[present]):
            node.draft.state(name)
        node.draft.bases[node.proto.output[present]] = node.name(past)


@rule("TensorScatter")
def _tensor_scatter(node: Node) -> None:
    """The rows of input 1 go into input 0, which keeps its size."""
    draft = node.draft
    past, present = node.name(0), node.proto.output[0]
    node.give(0, node.shape())
    rows = node.inner("rows", node.shape(1), node.dtype())
    if past in draft.inputs:
        draft.state(past)
    for name in (rows, present):
        draft.bases[name] = past
    node.emit(Kind.WRITE, (node.name(1),), (rows,), numel=prod(node.shape(1)))
