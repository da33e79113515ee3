"""One ONNX node on its way into the graph: what a rule reads, what it gives to the outputs and what it emits.

A rule is a short function that states the output shapes of an operator and lowers it to ops of the graph, both in
one place; `@rule("MatMul", "com.microsoft::FusedMatMul")` enters it in the one table. All sizes are plain integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import prod
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, numpy_helper

from hwsim.dtypes import dtype
from hwsim.errors import GraphError, UnsupportedOpError
from hwsim.graph import Attribute, Kind, Op, Repeat, Role

Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = npt.NDArray[np.generic]

# Element types of ONNX by number. float6 and float8e8m0 lie in a byte each; strings have no format.
FORMATS: dict[int, str] = {
    TensorProto.FLOAT: "fp32", TensorProto.UINT8: "uint8", TensorProto.INT8: "int8", TensorProto.UINT16: "uint16",
    TensorProto.INT16: "int16", TensorProto.INT32: "int32", TensorProto.INT64: "int64", TensorProto.BOOL: "bool",
    TensorProto.FLOAT16: "fp16", TensorProto.DOUBLE: "fp64", TensorProto.UINT32: "uint32",
    TensorProto.UINT64: "uint64", TensorProto.COMPLEX64: "complex64", TensorProto.COMPLEX128: "complex128",
    TensorProto.BFLOAT16: "bf16", TensorProto.FLOAT8E4M3FN: "fp8", TensorProto.FLOAT8E4M3FNUZ: "fp8",
    TensorProto.FLOAT8E5M2: "fp8_e5m2", TensorProto.FLOAT8E5M2FNUZ: "fp8_e5m2", TensorProto.UINT4: "uint4",
    TensorProto.INT4: "int4", TensorProto.FLOAT4E2M1: "fp4", 24: "fp8", 25: "int2", 26: "int2", 27: "fp8", 28: "fp8",
}  # fmt: skip

# What quantised operands are multiplied in: the signs of 8- and 4-bit integers make no difference to the units.
INTEGER_UNITS = {"uint8": "int8", "uint4": "int4", "uint16": "int16"}

# Operators whose int32 operand is a bias.
_QUANTISED = frozenset({"QLinearConv", "DequantizeLinear", "QGemm"})

# Larger constants are data, not shapes: their elements are never looked at.
FEW = 4096

_LARGEST_SIZE = 2**40
_LARGEST_TENSOR = 2**60


class Undetermined(Exception):
    """A shape depends on data that only a run would know."""


@dataclass(frozen=True, slots=True)
class Value:
    """What is known of a named value before anything runs.

    ``dtype`` is None for strings. ``array`` holds the elements where they are few and known; ``constant`` says that
    they are fixed in the file. ``stored`` is the narrower format behind a DequantizeLinear.
    """

    shape: Shape | None
    dtype: str | None
    array: Array | None = None
    constant: bool = False
    stored: str | None = None


@dataclass
class Draft:
    """The graph while it is put together.

    ``readers`` lists the operators that read each value; ``stated`` looks up what the file, or onnx's own shape
    inference, says about a value for which there is no rule.
    """

    versions: Mapping[str, int]
    inputs: frozenset[str]
    outputs: frozenset[str]
    readers: Mapping[str, Sequence[str]]
    stated: Callable[[str], Value]
    values: dict[str, Value] = field(default_factory=dict)
    bases: dict[str, str] = field(default_factory=dict)
    roles: dict[str, Role] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    repeats: list[Repeat] = field(default_factory=list)

    def enter(self, tensor: TensorProto, name: str) -> None:
        """A constant of the file; external data stays where it is, and data that were taken out are not missed."""
        shape = checked(tensor.dims, f"initializer '{name}'")
        array: Array | None = None
        inline = tensor.data_location != TensorProto.EXTERNAL and tensor.data_type in FORMATS
        if inline and prod(shape) <= FEW:
            with suppress(LookupError, TypeError, ValueError):
                array = numpy_helper.to_array(tensor)
        self.values[name] = Value(shape, FORMATS.get(tensor.data_type), array, constant=True)

    def state(self, name: str) -> None:
        """Mark a value that survives the run: a cache."""
        self.roles[name] = Role.STATE

    def storage(self, name: str) -> str:
        """The value that owns the storage behind ``name``."""
        while name in self.bases:
            name = self.bases[name]
        return name

    def is_weight(self, name: str) -> bool:
        """Whether a value is a constant that was trained: no scalar, no mask, no indices."""
        value = self.values[name]
        if not value.constant or not value.shape or value.dtype is None:
            return False
        fmt = dtype(value.dtype)
        # Quantised weights have 16 bits or fewer; 32-bit integers are their biases, or indices.
        bias = value.dtype == "int32" and not _QUANTISED.isdisjoint(self.readers.get(name, ()))
        return bias or not (fmt.kind == "bool" or (fmt.kind == "int" and fmt.bits > 16))

    def is_operand(self, name: str) -> bool:
        """Whether an op can name the value: it has a shape and a format, and is not folded shape arithmetic."""
        value = self.values[name]
        known = value.array is not None and value.array.dtype.kind in "iub"
        folded = known and name not in self.outputs and not self.is_weight(name)
        return value.shape is not None and value.dtype is not None and not folded


def checked(shape: Iterable[int], what: str) -> Shape:
    """``shape`` as integers, unless a size is negative or beyond anything that exists."""
    sizes = tuple(int(size) for size in shape)
    for size in sizes:
        if not 0 <= size <= _LARGEST_SIZE:
            raise GraphError(f"{what}: size {size} is not between 0 and 2**40")
    if prod(sizes) > _LARGEST_TENSOR:
        raise GraphError(f"{what}: shape {'x'.join(map(str, sizes))} has more than 2**60 elements")
    return sizes


class Node:
    """A node with its place in the draft. Inputs and outputs are addressed by position."""

    def __init__(self, proto: NodeProto, draft: Draft, path: str) -> None:
        self.proto = proto
        self.draft = draft
        self.path = path
        self.domain = "" if proto.domain == "ai.onnx" else proto.domain
        self.key = f"{self.domain}::{proto.op_type}" if self.domain else proto.op_type
        self.version = draft.versions.get(self.domain, 1)
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}

    @property
    def where(self) -> str:
        """The node as error messages call it."""
        return f"node '{self.path}' (op {self.proto.op_type}, domain {self.domain or 'ai.onnx'})"

    @property
    def source(self) -> str:
        """The operator's name in the graph."""
        return self.key if self.domain else f"onnx::{self.key}"

    # Reading -----------------------------------------------------------------------------------------------------

    def has(self, index: int) -> bool:
        """Whether input ``index`` is given."""
        return index < len(self.proto.input) and bool(self.proto.input[index])

    def makes(self, index: int) -> bool:
        """Whether output ``index`` is asked for."""
        return index < len(self.proto.output) and bool(self.proto.output[index])

    def name(self, index: int) -> str:
        """The name of input ``index``, which must be given."""
        if not self.has(index):
            raise GraphError(f"{self.where}: input {index} is missing")
        return str(self.proto.input[index])

    def input(self, index: int = 0) -> Value:
        """What is known of input ``index``."""
        return self.draft.values[self.name(index)]

    def shape(self, index: int = 0) -> Shape:
        """The shape of input ``index``; an unknown one is refused with the node that left it open."""
        shape = self.input(index).shape
        if shape is None:
            name = self.name(index)
            origin = self.draft.origins.get(name, "a graph input")
            raise UnsupportedOpError(
                f"{self.where} needs the shape of '{name}', which {origin} leaves unknown: "
                "state it in the file (value_info), give the elements of an integer input that decides it as "
                "--dim 'input[0]=8' (in Python dims={'input[0]': 8}), or replace that node"
            )
        return shape

    def dtype(self, index: int = 0) -> str:
        """The number format of input ``index``."""
        found = self.input(index).dtype
        if found is None:
            self.shape(index)  # what is not known at all is refused as such
            raise UnsupportedOpError(f"{self.where}: input '{self.name(index)}' holds strings")
        return found

    def known(self, index: int) -> Array | None:
        """The elements of input ``index`` where they are known before a run."""
        return self.input(index).array if self.has(index) else None

    def ints(self, index: int) -> Shape:
        """The known integers of input ``index``; `Undetermined` where only a run would tell."""
        array = self.known(index)
        if array is None:
            raise Undetermined
        return tuple(int(element) for element in array.reshape(-1))

    def floats(self, index: int) -> tuple[float, ...]:
        """The known numbers of input ``index``; `Undetermined` where only a run would tell."""
        array = self.known(index)
        if array is None:
            raise Undetermined
        return tuple(float(element) for element in array.reshape(-1))

    def attribute(self, name: str) -> AttributeProto | None:
        """The attribute as it stands in the file."""
        return self._attributes.get(name)

    def integer(self, name: str, default: int = 0) -> int:
        """The integer attribute ``name``."""
        found = self._attributes.get(name)
        return default if found is None else found.i

    def sizes(self, name: str) -> Shape | None:
        """The integer-list attribute ``name``."""
        found = self._attributes.get(name)
        return None if found is None else tuple(found.ints)

    def text(self, name: str, default: str = "") -> str:
        """The text attribute ``name``."""
        found = self._attributes.get(name)
        return default if found is None else found.s.decode("utf-8", "replace")

    def body(self, name: str) -> GraphProto:
        """The subgraph attribute ``name``."""
        found = self._attributes.get(name)
        if found is None:
            raise GraphError(f"{self.where}: subgraph '{name}' is missing")
        graph: GraphProto = found.g
        return graph

    def option(self, name: str, index: int) -> Shape | None:
        """A list that older operator sets keep in attribute ``name`` and newer ones in input ``index``."""
        return self.ints(index) if self.has(index) else self.sizes(name)

    def axis(self, axis: int, rank: int) -> int:
        """``axis`` counted from the front, checked against ``rank``."""
        if not -rank <= axis < rank:
            raise GraphError(f"{self.where}: axis {axis} is outside a tensor of rank {rank}")
        return axis % rank

    # Giving ------------------------------------------------------------------------------------------------------

    def give(self, index: int, shape: Iterable[int], dtype: str | None = None) -> None:
        """State output ``index``: its shape, and its format (the first input's unless told)."""
        if self.makes(index):
            name = self.proto.output[index]
            self.make(name, shape, self.dtype() if dtype is None else dtype)

    def make(self, name: str, shape: Iterable[int], dtype: str) -> str:
        """A value of this node: an output, or one that stays inside a compound operator."""
        self.draft.values[name] = Value(checked(shape, f"{self.where}, output '{name}'"), dtype)
        return name

    def inner(self, label: str, shape: Iterable[int], dtype: str) -> str:
        """A value inside a compound operator."""
        return self.make(f"{next(name for name in self.proto.output if name)}#{label}", shape, dtype)

    def result(self, compute: Callable[[], Iterable[int]], index: int = 0) -> Shape:
        """The computed shape of output ``index``, or the stated one where it depends on data."""
        try:
            return checked(compute(), f"{self.where}, output {index}")
        except Undetermined:
            stated = self.stated(index)
            if stated is None:
                raise
            return stated

    def stated(self, index: int) -> Shape | None:
        """The shape that the file or onnx's shape inference states for output ``index``."""
        return self.draft.stated(self.proto.output[index]).shape if self.makes(index) else None

    def operands(self) -> tuple[str, ...]:
        """Names of the inputs that an op can name."""
        return tuple(name for name in self.proto.input if name and self.draft.is_operand(name))

    def results(self) -> tuple[str, ...]:
        """Names of the outputs that have a shape and a format."""
        values = self.draft.values
        named = (name for name in self.proto.output if name in values)
        return tuple(name for name in named if values[name].shape is not None and values[name].dtype is not None)

    def emit(
        self,
        kind: Kind,
        inputs: Sequence[str] | None = None,
        outputs: Sequence[str] | None = None,
        compute: str = "",
        **attrs: Attribute,
    ) -> None:
        """Append an op; what is not told is the node's own: inputs, outputs, the format that it computes in."""
        read = self.operands() if inputs is None else tuple(n for n in inputs if self.draft.is_operand(n))
        made = self.results() if outputs is None else tuple(outputs)
        if compute:
            attrs["compute"] = compute
        self.draft.ops.append(Op(kind, read, made, attrs, self.source, self.path))

    def view(self, shape: Iterable[int], dtype: str | None = None, source: int = 0, output: int = 0) -> None:
        """Output ``output`` is input ``source`` in another shape: no byte moves."""
        self.give(output, shape, self.dtype(source) if dtype is None else dtype)
        if self.makes(output) and self.draft.is_operand(self.name(source)):
            name = self.proto.output[output]
            stored = self.input(source).stored
            self.draft.bases[name] = self.name(source)
            self.draft.values[name] = replace(self.draft.values[name], stored=stored)
            self.emit(Kind.VIEW, (self.name(source),), (name,))

    def unmodelled(self) -> None:
        """No rule: the outputs are as stated, and the op is charged its operand bytes and listed."""
        for name in self.proto.output:
            if name:
                self.draft.values[name] = self.draft.stated(name)
        self.emit(Kind.UNKNOWN)


Rule: TypeAlias = Callable[[Node], None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for the operators ``names`` (``domain::Name`` outside the standard domain)."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise GraphError(f"a rule for the ONNX operator {name} exists already")
            RULES[name] = function
        return function

    return register


def broadcast(node: Node, *shapes: Shape) -> Shape:
    """The shape to which ``shapes`` broadcast."""
    rank = max((len(shape) for shape in shapes), default=0)
    sizes = [1] * rank
    for shape in shapes:
        for place, size in enumerate(shape, rank - len(shape)):
            if size != 1 and sizes[place] not in (1, size):
                listed = ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
                raise GraphError(f"{node.where}: shapes {listed} do not broadcast")
            sizes[place] = sizes[place] if size == 1 else size
    return tuple(sizes)
