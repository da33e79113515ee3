"""The sizes of an ONNX file made concrete: names and unnamed axes of its inputs take the values that the user gives.

An unnamed axis is called `input.axis`, such as `x.0`. A name like `past + sequence`, as exporters write, is computed
where each part is a name of its own; its text is read as a syntax tree and never executed. Some models take a shape
as data, in a small integer input; its elements can be given too, as `sizes[0]`, or `length` for a scalar.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod

import numpy as np
from onnx import GraphProto, TensorProto, TensorShapeProto, ValueInfoProto

from hwsim.errors import GraphError, Problem, UnknownNameError, UnsupportedOpError, shown
from hwsim.frontends.onnx_node import FORMATS, Array, Shape, Value, checked

_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_LONGEST_NAME = 200
_LARGEST = 2**40
_FEW_ELEMENTS = 64


class Dims:
    """Values for the free sizes of one graph; constructing it checks that all are there and none is too many."""

    def __init__(self, graph: GraphProto, given: Mapping[str, int]) -> None:
        constants = {tensor.name for tensor in graph.initializer}
        self.inputs = [value for value in graph.input if value.name not in constants]
        _check_types((*self.inputs, *graph.output))
        every = list(_named_dims((*self.inputs, *graph.output, *graph.value_info)))
        self._plain = {name for name, _ in every if name.isidentifier()}
        self._elements = {name for value in self.inputs for name in _elements(value, given)}
        names = {name for name, _ in (*every, *_unnamed_dims(self.inputs))}
        for name in given:
            if name not in names | self._elements:
                if not names | self._elements:
                    raise GraphError(f"all sizes are fixed: there is no '{name}' to give")
                raise UnknownNameError("dimension", name, names | self._elements)
        _check_sizes({name: size for name, size in given.items() if name not in self._elements})
        self._given = given
        self._check_complete()

    def _check_complete(self) -> None:
        free: dict[str, list[str]] = {}
        for name, tensor in (*_named_dims(self.inputs), *_unnamed_dims(self.inputs)):
            if self.value(name) is None:
                free.setdefault(name, []).append(tensor)
        if free:
            listed = "; ".join(f"{name} (of {', '.join(dict.fromkeys(tensors))})" for name, tensors in free.items())
            raise GraphError(f"sizes without a value: {listed}; {_how_to_give(next(iter(free)))}")

    def value(self, name: str) -> int | None:
        """The value of a size: given, or computed from given ones."""
        if name in self._given:
            return self._given[name]
        if name.isidentifier() or len(name) > _LONGEST_NAME:
            return None
        try:
            return self._computed(ast.parse(name, mode="eval").body)
        except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
            return None

    def _computed(self, tree: ast.expr) -> int | None:
        if isinstance(tree, ast.Constant) and type(tree.value) is int:
            return tree.value
        if isinstance(tree, ast.Name) and tree.id in self._plain:
            return self._given.get(tree.id)
        if isinstance(tree, ast.BinOp) and type(tree.op) in _OPERATIONS:
            left, right = self._computed(tree.left), self._computed(tree.right)
            return None if left is None or right is None else _OPERATIONS[type(tree.op)](left, right)
        return None

    def size(self, dim: TensorShapeProto.Dimension, unnamed: str) -> int | None:
        """One size of a stated shape; ``unnamed`` is what it is called without a name."""
        if dim.HasField("dim_value"):
            return dim.dim_value
        return self.value(dim.dim_param or unnamed)

    def concrete(self, value: ValueInfoProto) -> Value:
        """What the file states about a value."""
        tensor = value.type.tensor_type
        dtype = FORMATS.get(tensor.elem_type)
        if not tensor.HasField("shape"):
            return Value(None, dtype)
        sizes = [self.size(dim, f"{value.name}.{axis}") for axis, dim in enumerate(tensor.shape.dim)]
        shape = tuple(size for size in sizes if size is not None and size >= 0)
        return Value(checked(shape, f"'{value.name}'") if len(shape) == len(sizes) else None, dtype)

    def input_value(self, value: ValueInfoProto) -> Value:
        """A graph input with all its sizes."""
        tensor = value.type.tensor_type
        if not tensor.HasField("shape"):
            raise GraphError(f"input '{value.name}' states no shape, not even a rank: export the model with its shapes")
        sizes = (self.size(dim, f"{value.name}.{axis}") or 0 for axis, dim in enumerate(tensor.shape.dim))
        shape = checked(sizes, f"input '{value.name}'")
        elements = [self._given.get(name) for name in _elements(value, self._given)]
        array: Array | None = None
        if len(shape) < 2 and len(elements) == prod(shape) and None not in elements:
            array = np.asarray(elements, dtype=np.int64).reshape(shape)
        return Value(shape, FORMATS.get(tensor.elem_type), array)


def fix(value: ValueInfoProto, shape: Shape) -> None:
    """Write concrete sizes into the description of an input."""
    for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size


def _named_dims(values: Iterable[ValueInfoProto]) -> Iterator[tuple[str, str]]:
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                yield dim.dim_param, value.name


def _unnamed_dims(values: Iterable[ValueInfoProto]) -> Iterator[tuple[str, str]]:
    for value in values:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.WhichOneof("value") is None:
                yield f"{value.name}.{axis}", value.name


def _how_to_give(name: str) -> str:
    """How users give a size a value."""
    return f"give them values, as --dim '{name}=8' or in Python dims={{'{name}': 8}}"


def _elements(value: ValueInfoProto, given: Mapping[str, int]) -> list[str]:
    """What the elements of an integer input of rank 0 or 1 are called."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in (TensorProto.INT32, TensorProto.INT64) or not tensor.HasField("shape"):
        return []
    if not tensor.shape.dim:
        return [value.name]
    if len(tensor.shape.dim) > 1:
        return []
    dim = tensor.shape.dim[0]
    size = dim.dim_value or given.get(dim.dim_param or f"{value.name}.0", 0)
    return [f"{value.name}[{place}]" for place in range(min(size, _FEW_ELEMENTS))] if isinstance(size, int) else []


def _check_types(values: Iterable[ValueInfoProto]) -> None:
    for value in values:
        kind = value.type.WhichOneof("value")
        if kind not in (None, "tensor_type"):
            raise UnsupportedOpError(f"'{value.name}' is of {str(kind).replace('_', ' ')}: only tensors are imported")


def _check_sizes(given: Mapping[str, int]) -> None:
    wrong = [
        Problem(path=f"dims.{name}", got=shown(size), expected="an integer from 1 to 2**40")
        for name, size in given.items()
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= _LARGEST
    ]
    if wrong:
        raise GraphError(*wrong)
