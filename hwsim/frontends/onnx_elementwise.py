"""Rules of ONNX operators that work element by element, quantisation and random numbers included."""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from onnx import TensorProto
from onnx.helper import get_attribute_value, tensor_dtype_to_np_dtype

from hwsim.errors import GraphError
from hwsim.frontends.onnx_node import FORMATS, Node, Undetermined, Value, broadcast, rule
from hwsim.graph import Kind

# Operators and the functions of `hwsim.work.ELEMENTWISE` that cost the same.
_UNARY = {
    "Abs": "abs", "Neg": "neg", "Relu": "relu", "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Exp": "exp",
    "Log": "log", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Tanh": "tanh", "Sigmoid": "sigmoid", "Erf": "erf",
    "Floor": "round", "Ceil": "round", "Round": "round", "Sign": "sign", "BitwiseNot": "bitwise", "Elu": "elu",
    "Acos": "trigonometric", "Asin": "trigonometric", "Atan": "trigonometric", "Acosh": "trigonometric",
    "Asinh": "trigonometric", "Atanh": "trigonometric", "Sinh": "trigonometric", "Cosh": "trigonometric",
    "Selu": "elu", "Celu": "elu", "Softplus": "softplus", "Softsign": "elu", "LeakyRelu": "leaky_relu",
    "ThresholdedRelu": "leaky_relu", "Shrink": "leaky_relu", "HardSigmoid": "hardsigmoid",
    "HardSwish": "hardswish", "Mish": "mish", "Swish": "silu", "Clip": "clamp", "Trilu": "where",
    "ai.onnx.ml::Binarizer": "compare", "com.microsoft::QuickGelu": "silu", "com.microsoft::FastGelu": "gelu_tanh",
    "com.microsoft::BiasGelu": "gelu", "com.microsoft::QLinearSigmoid": "sigmoid",
    "com.microsoft::QLinearLeakyRelu": "leaky_relu",
}  # fmt: skip
_BROADCASTING = {
    "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Mod": "remainder", "Pow": "pow", "PRelu": "leaky_relu",
    "BitwiseAnd": "bitwise", "BitwiseOr": "bitwise", "BitwiseXor": "bitwise", "BitShift": "bitwise",
    "Max": "maximum", "Min": "minimum", "Sum": "add", "Mean": "add",
}  # fmt: skip
_PREDICATES = {
    "And": "logical", "Or": "logical", "Xor": "logical", "Not": "logical", "Equal": "compare",
    "Greater": "compare", "Less": "compare", "GreaterOrEqual": "compare", "LessOrEqual": "compare",
    "IsNaN": "compare", "IsInf": "compare",
}  # fmt: skip
_QUANTISED = {"com.microsoft::QLinearAdd": "add", "com.microsoft::QLinearMul": "mul"}


def elementwise(node: Node, function: str, numel: int) -> None:
    """One elementwise op over the node's own inputs and outputs."""
    node.emit(Kind.ELEMENTWISE, function=function, numel=numel)


@rule(*_UNARY)
def _unary(node: Node) -> None:
    """Further inputs are parameters (bounds, a bias, scales)."""
    node.give(0, node.shape())
    elementwise(node, _UNARY[node.key], prod(node.shape()))


@rule(*_BROADCASTING)
def _broadcasting(node: Node) -> None:
    shape = _broadcast_inputs(node)
    node.give(0, shape)
    elementwise(node, _BROADCASTING[node.key], prod(shape) * max(1, len(node.proto.input) - 1))


@rule(*_PREDICATES)
def _predicate(node: Node) -> None:
    shape = _broadcast_inputs(node)
    node.give(0, shape, "bool")
    elementwise(node, _PREDICATES[node.key], prod(shape))


def _broadcast_inputs(node: Node) -> tuple[int, ...]:
    """Before operator set 7 the second operand fits into the first (attributes `broadcast` and `axis`)."""
    if node.version < 7 and node.integer("broadcast"):
        return node.shape()
    return broadcast(node, *(node.shape(index) for index in range(len(node.proto.input))))


@rule(*_QUANTISED)
def _quantised_binary(node: Node) -> None:
    """Inputs: A, its scale and zero point, then the same of B."""
    shape = broadcast(node, node.shape(0), node.shape(3))
    node.give(0, shape)
    elementwise(node, _QUANTISED[node.key], prod(shape))


@rule("Where")
def _where(node: Node) -> None:
    shape = broadcast(node, *(node.shape(index) for index in range(3)))
    node.give(0, shape, node.dtype(1))
    elementwise(node, "where", prod(shape))


@rule("Gelu", "com.microsoft::Gelu")
def _gelu(node: Node) -> None:
    node.give(0, node.shape())
    elementwise(node, "gelu_tanh" if node.text("approximate") == "tanh" else "gelu", prod(node.shape()))


@rule("SwiGLU")
def _swiglu(node: Node) -> None:
    node.give(0, node.shape())
    elementwise(node, "glu", prod(node.shape()))


@rule("Dropout")
def _dropout(node: Node) -> None:
    """Free in inference; it works only where `training_mode` is known to be true."""
    training = node.known(2)
    if training is not None and bool(training.all()):
        node.give(0, node.shape())
        node.give(1, node.shape(), "bool")
        elementwise(node, "dropout", prod(node.shape()))
        return
    node.view(node.shape())
    if node.makes(1):
        # Before operator set 10 the mask has the data's type.
        node.give(1, node.shape(), "bool" if node.version >= 10 else node.dtype())
        node.emit(Kind.FILL, (), (node.proto.output[1],), numel=prod(node.shape()))


@rule("Cast", "CastLike", "BitCast")
def _cast(node: Node) -> None:
    """A cast to the same format, or of the bits as they are, is a view."""
    target = node.dtype(1) if node.key == "CastLike" else element_format(node, node.integer("to"))
    if node.key == "BitCast" or target == node.dtype():
        node.view(node.shape(), target)
        return
    node.give(0, node.shape(), target)
    node.emit(Kind.ELEMENTWISE, (node.name(0),), function="cast", numel=prod(node.shape()))


def element_format(node: Node, number: int) -> str:
    """The format of ONNX's element type ``number``; strings are left to the caller as undetermined."""
    if number not in FORMATS:
        raise Undetermined
    return FORMATS[number]


@rule("QuantizeLinear", "com.microsoft::QuantizeLinear")
def _quantize(node: Node) -> None:
    """The zero point has the target format; without one it is `output_dtype`, else uint8."""
    number = node.integer("output_dtype")
    target = node.dtype(2) if node.has(2) else element_format(node, number) if number else "uint8"
    node.give(0, node.shape(), target)
    elementwise(node, "quantize", prod(node.shape()))


_FUSES_DEQUANTIZE = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose"})


@rule("DequantizeLinear", "com.microsoft::DequantizeLinear")
def _dequantize(node: Node) -> None:
    """Folded into its reader where the data is a constant, or where only products and convolutions read it.

    The reader then reads the stored width, as the integer kernels of a runtime do.
    """
    target = node.dtype(1)
    readers = node.draft.readers.get(node.proto.output[0], ())
    fused = bool(readers) and all(reader in _FUSES_DEQUANTIZE for reader in readers)
    if node.input(0).constant or (fused and node.proto.output[0] not in node.draft.outputs):
        node.view(node.shape(), target)
        name = node.proto.output[0]
        node.draft.values[name] = replace(node.draft.values[name], stored=node.dtype())
        return
    node.give(0, node.shape(), target)
    elementwise(node, "dequantize", prod(node.shape()))


@rule("DynamicQuantizeLinear")
def _dynamic_quantize(node: Node) -> None:
    """The range of the data first, then the data itself."""
    numel = prod(node.shape())
    node.give(0, node.shape(), "uint8")
    node.give(1, (), "fp32")
    node.give(2, (), "uint8")
    node.emit(Kind.REDUCE, outputs=node.results()[1:], function="max", rows=1, cols=2 * numel)
    node.emit(
        Kind.ELEMENTWISE, (node.name(0), *node.results()[1:2]), node.results()[:1], function="quantize", numel=numel
    )


@rule("RandomNormal", "RandomUniform")
def _random(node: Node) -> None:
    shape = node.sizes("shape") or ()
    node.give(0, shape, element_format(node, node.integer("dtype", 1)))
    node.emit(Kind.RANDOM, numel=prod(shape))


@rule("RandomNormalLike", "RandomUniformLike", "Bernoulli")
def _random_like(node: Node) -> None:
    """Only Bernoulli reads its input, as probabilities."""
    number = node.integer("dtype")
    node.give(0, node.shape(), element_format(node, number) if number else node.dtype())
    inputs = node.operands() if node.key == "Bernoulli" else ()
    node.emit(Kind.RANDOM, inputs, numel=prod(node.shape()))


@rule("Multinomial")
def _multinomial(node: Node) -> None:
    shape = (node.shape()[0], node.integer("sample_size", 1))
    node.give(0, shape, element_format(node, node.integer("dtype", 6)))
    node.emit(Kind.RANDOM, numel=prod(shape))


# Optimizer: tensors kept per parameter (the parameter and its moments), the function that costs the same.
_OPTIMIZERS = {"Adam": (3, "adamw"), "Adagrad": (2, "sgd"), "Momentum": (2, "sgd")}


@rule(*(f"ai.onnx.preview.training::{name}" for name in _OPTIMIZERS))
def _optimizer(node: Node) -> None:
    """Inputs: rate, step, then the parameters, their gradients and each moment as groups of equal length."""
    kept, function = _OPTIMIZERS[node.proto.op_type]
    count, rest = divmod(len(node.proto.input) - 2, kept + 1)
    if rest:
        raise GraphError(f"{node.where}: {len(node.proto.input) - 2} tensors are no whole groups of {kept + 1}")
    for index in range(count):
        for group in range(kept):
            node.give(group * count + index, node.shape(2 + index), node.dtype(2))
    elementwise(node, function, sum(prod(node.shape(2 + index)) for index in range(count)))


@rule("Constant")
def _constant(node: Node) -> None:
    """A tensor like an initialiser, or one of the shorthand attributes."""
    output = node.proto.output[0]
    for attribute in node.proto.attribute:
        number, dtype = _SHORTHANDS.get(attribute.name, (0, ""))
        if attribute.name == "value":
            node.draft.enter(attribute.t, output)
            return
        if dtype:
            array = np.asarray(get_attribute_value(attribute), dtype=tensor_dtype_to_np_dtype(number))
            node.draft.values[output] = Value(array.shape, dtype, array, constant=True)
            return
    sparse = node.attribute("sparse_value")
    if sparse is None:
        raise Undetermined
    node.give(0, sparse.sparse_tensor.dims, element_format(node, sparse.sparse_tensor.values.data_type))


_SHORTHANDS = {
    "value_int": (TensorProto.INT64, "int64"), "value_ints": (TensorProto.INT64, "int64"),
    "value_float": (TensorProto.FLOAT, "fp32"), "value_floats": (TensorProto.FLOAT, "fp32"),
}  # fmt: skip
