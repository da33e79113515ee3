"""Graphs as JSON: what the capture cache and the shipped captures hold. Nothing in them is ever executed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hwsim.errors import GraphError
from hwsim.graph import Attribute, Graph, Kind, Op, Repeat, Role, Tensor
from hwsim.sizes import Expr, Size, from_json, to_json

VERSION = 1


def dump_graph(graph: Graph) -> dict[str, Any]:
    """``graph`` as JSON data."""
    return {
        "version": VERSION,
        "name": graph.name,
        "level": graph.level,
        "tensors": [_dump_tensor(tensor) for tensor in graph.tensors.values()],
        "ops": [_dump_op(op) for op in graph.ops],
        "repeats": [[r.start, r.stop, r.count, sorted(r.shared)] for r in graph.repeats],
    }


def read_graph(data: Mapping[str, Any]) -> Graph:
    """The inverse of `dump_graph`; raises `GraphError` on anything else."""
    if data.get("version") != VERSION:
        raise GraphError(f"graph file of version {data.get('version')!r}; this hwsim reads {VERSION}")
    try:
        tensors = [_read_tensor(entry) for entry in data["tensors"]]
        repeats = tuple(Repeat(start, stop, count, frozenset(shared)) for start, stop, count, shared in data["repeats"])
        ops = tuple(_read_op(entry) for entry in data["ops"])
        return Graph(data["name"], {tensor.name: tensor for tensor in tensors}, ops, repeats, data["level"])
    except (KeyError, TypeError, ValueError) as error:
        raise GraphError(f"not a graph file: {error}") from None


def _dump_tensor(tensor: Tensor) -> list[Any]:
    distinct = None if tensor.distinct is None else to_json(tensor.distinct)
    return [
        tensor.name,
        [to_json(size) for size in tensor.shape],
        tensor.dtype,
        str(tensor.role),
        tensor.base,
        distinct,
    ]


def _read_tensor(entry: list[Any]) -> Tensor:
    name, shape, dtype, role, base, distinct = entry
    sizes = tuple(from_json(size) for size in shape)
    return Tensor(name, sizes, dtype, Role(role), base, None if distinct is None else from_json(distinct))


def _dump_op(op: Op) -> list[Any]:
    attrs = {name: _dump_attribute(value) for name, value in op.attrs.items()}
    return [str(op.kind), list(op.inputs), list(op.outputs), attrs, op.source, op.path]


def _read_op(entry: list[Any]) -> Op:
    kind, inputs, outputs, attrs, source, path = entry
    values = {name: _read_attribute(value) for name, value in attrs.items()}
    return Op(Kind(kind), tuple(inputs), tuple(outputs), values, source, path)


def _dump_attribute(value: Attribute) -> Any:
    """Sizes stay bare ints; the other types of an attribute are wrapped so that reading is unambiguous."""
    if isinstance(value, Expr):
        return {"size": to_json(value)}
    if isinstance(value, tuple):
        return {"sizes": [to_json(size) for size in value]}
    return value


def _read_attribute(value: Any) -> Attribute:
    if isinstance(value, dict):
        if "sizes" in value:
            sizes: tuple[Size, ...] = tuple(from_json(size) for size in value["sizes"])
            return sizes
        return from_json(value["size"])
    if isinstance(value, bool | int | float | str):
        return value
    raise GraphError(f"not an attribute: {value!r}")
