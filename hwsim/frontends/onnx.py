"""`load_onnx`: an ONNX file becomes a Graph. Weights are never read, and all sizes are concrete.

How an operator is lowered stands with its rule, in the modules imported below by theme:

- `onnx_layout` says which operators are free views and which copy; `onnx_run` what is folded as the model is loaded.
- `onnx_cache` and `onnx_attention`: inputs that come out again are states, of which only new rows are written.
- `onnx_matrix` and `onnx_window`: products and convolutions; `onnx_elementwise` explains what quantised ones read.
- An operator that the standard or the file defines as a function, and that has no rule, is replaced by its body.
- Any other operator is listed as unmodelled; its outputs take the shapes that the file or onnx's shape inference
  states. An output whose shape stays unknown is left out of the graph (as strings are), and the first rule that
  needs it says which node is to blame. Loops, branches on data, sequences and optionals are refused by name.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path

from onnx import GraphProto, ModelProto, NodeProto, shape_inference

from hwsim.errors import GraphError, UnknownNameError
from hwsim.frontends import (  # noqa: F401  # rules enter the table on import
    onnx_attention,
    onnx_cache,
    onnx_elementwise,
    onnx_index,
    onnx_layout,
    onnx_matrix,
    onnx_recurrent,
    onnx_reduce,
    onnx_window,
)
from hwsim.frontends.onnx_dims import Dims, fix
from hwsim.frontends.onnx_file import expanded, read
from hwsim.frontends.onnx_node import FORMATS, Draft, Value, checked
from hwsim.frontends.onnx_run import run
from hwsim.graph import Graph, Role, Tensor

_UNKNOWN = Value(None, None)
_LONGEST_SHAPE = 2**20


def load_onnx(path: str | os.PathLike[str], dims: Mapping[str, int] | None = None, name: str | None = None) -> Graph:
    """The graph of the ONNX model in ``path``.

    ``dims`` gives a value to every free size of the inputs, by its name in the file or as `input.axis` where it has
    none: ``load_onnx("bert.onnx", dims={"batch": 8, "sequence": 128})``. Where an integer input decides a shape, its
    elements go there as well: ``{"sizes[0]": 4}``. ``name`` is the file's stem unless told.
    """
    file = Path(path)
    try:
        return _graph(expanded(read(file)), dims or {}, name or file.stem)
    except UnknownNameError:
        raise
    except GraphError as error:
        # Names in a file may hold anything, line breaks too.
        problems = (replace(p, file=str(file), message=" ".join(p.message.split())) for p in error.problems)
        raise type(error)(*problems) from error


def _graph(model: ModelProto, given: Mapping[str, int], name: str) -> Graph:
    dims = Dims(model.graph, given)
    values = {value.name: dims.input_value(value) for value in dims.inputs}
    draft = Draft(
        versions={"" if o.domain == "ai.onnx" else o.domain: o.version for o in model.opset_import},
        inputs=frozenset(values),
        outputs=frozenset(value.name for value in model.graph.output),
        readers=_readers(model.graph),
        stated=_stated(model, dims, values),
        values=values,
    )
    for tensor in model.graph.initializer:
        draft.enter(tensor, tensor.name)
    for sparse in model.graph.sparse_initializer:
        shape = checked(sparse.dims, f"initializer '{sparse.values.name}'")
        draft.values[sparse.values.name] = Value(shape, FORMATS.get(sparse.values.data_type), constant=True)
    for index, node in enumerate(model.graph.node):
        run(draft, node, index)
    tensors = {tensor: _tensor(draft, tensor) for tensor in _named(draft, model.graph)}
    return Graph(name, tensors, tuple(draft.ops), tuple(draft.repeats), level="onnx")


def _readers(graph: GraphProto) -> dict[str, list[str]]:
    """Operators that read each value; what a subgraph reads counts for the node that holds it."""
    readers: dict[str, list[str]] = {}

    def visit(node: NodeProto, reader: str) -> None:
        for name in node.input:
            readers.setdefault(name, []).append(reader)
        for attribute in node.attribute:
            for inner in attribute.g.node:
                visit(inner, reader)

    for node in graph.node:
        visit(node, node.op_type)
    return readers


def _stated(model: ModelProto, dims: Dims, values: Mapping[str, Value]) -> Callable[[str], Value]:
    """What the file states about a value, else what onnx infers; inference runs only when somebody asks."""
    inputs = dict(values)
    stated = {value.name: dims.concrete(value) for value in (*model.graph.value_info, *model.graph.output)}

    @cache
    def inferred() -> dict[str, Value]:
        # onnx makes one axis for every element of what might be a shape, however many these are.
        if any(len(known.shape or ()) == 1 and prod(known.shape or ()) > _LONGEST_SHAPE for known in values.values()):
            return {}
        copy = ModelProto()
        copy.CopyFrom(model)
        for value in copy.graph.input:
            shape = inputs[value.name].shape if value.name in inputs else None
            if shape is not None:
                fix(value, shape)
        try:
            result = shape_inference.infer_shapes(copy, data_prop=True)
        except Exception:  # compiled code that throws whatever it likes; without it less is known
            return {}
        return {value.name: dims.concrete(value) for value in (*result.graph.value_info, *result.graph.output)}

    def look_up(name: str) -> Value:
        own = stated.get(name, _UNKNOWN)
        if own.shape is not None and own.dtype is not None:
            return own
        other = inferred().get(name, _UNKNOWN)
        return Value(other.shape if own.shape is None else own.shape, own.dtype or other.dtype)

    return look_up


def _named(draft: Draft, graph: GraphProto) -> Iterator[str]:
    """Names of the graph's tensors: inputs, weights, operands of ops, outputs, and what they are views of.

    A weight that went into a folded constant counts too; one that no node reads is not part of the model.
    """
    read = (tensor.name for tensor in graph.initializer if tensor.name in draft.readers)
    weights = (name for name in read if _role(draft, name) is Role.WEIGHT)
    operands = (name for op in draft.ops for name in (*op.inputs, *op.outputs))
    for name in dict.fromkeys((*draft.inputs, *weights, *operands, *draft.outputs)):
        value = draft.values.get(name, _UNKNOWN)
        if value.shape is not None and value.dtype is not None:
            yield name
            while name in draft.bases:
                name = draft.bases[name]
                yield name


def _tensor(draft: Draft, name: str) -> Tensor:
    value = draft.values[name]
    assert value.shape is not None and value.dtype is not None, f"'{name}' has no shape or format"
    return Tensor(name, value.shape, value.stored or value.dtype, _role(draft, name), draft.bases.get(name))


def _role(draft: Draft, name: str) -> Role:
    """A view has the role of what lies behind it, unless it is the result of the graph; a known value is a buffer."""
    while name not in draft.roles and name not in draft.outputs and name in draft.bases:
        name = draft.bases[name]
    if name in draft.roles:
        return draft.roles[name]
    if name in draft.outputs:
        return Role.OUTPUT
    if name in draft.inputs:
        return Role.INPUT
    value = draft.values[name]
    if draft.is_weight(name):
        return Role.WEIGHT
    return Role.BUFFER if value.constant or value.array is not None else Role.ACTIVATION
