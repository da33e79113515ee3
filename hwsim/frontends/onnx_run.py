"""One node into the draft: its rule, then the folding of what is known before a run.

Constant folding is what every runtime does while it loads a model: a node whose inputs are all constants leaves no
op, and its outputs are views of its largest input. Shape arithmetic leaves no op either.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from onnx import GraphProto, NodeProto
from onnx.reference import ReferenceEvaluator

from hwsim.errors import GraphError, HwsimError, UnsupportedOpError
from hwsim.frontends.onnx_node import FEW, RULES, Array, Draft, Node, Undetermined, rule
from hwsim.graph import Kind

# Operators that shape arithmetic is made of, evaluated by onnx's reference implementation where operands are known.
_FOLDABLE = frozenset({
    "Abs", "Add", "And", "BitwiseAnd", "BitwiseOr", "Cast", "CastLike", "Ceil", "Concat", "ConstantOfShape", "CumSum",
    "Div", "Equal", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "GatherND", "Greater", "GreaterOrEqual",
    "Identity", "Less", "LessOrEqual", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Or", "Pow", "Range",
    "Reciprocal", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum", "Reshape", "Round", "ScatterElements",
    "ScatterND", "Sign", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tile", "TopK", "Transpose", "Trilu",
    "Unsqueeze", "Where", "Xor",
})  # fmt: skip
_NUMPY = {"fp32": np.float32, "fp16": np.float16, "fp64": np.float64, "int64": np.int64, "int32": np.int32}
_RANDOM = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)


def run(draft: Draft, proto: NodeProto, index: int) -> None:
    """Enter node ``index`` of its graph into ``draft``."""
    node = Node(proto, draft, proto.name or f"{proto.op_type}_{index}")
    for name in proto.input:
        if name and name not in draft.values:
            raise GraphError(f"{node.where} reads '{name}', which nothing before it makes")
    for name in proto.output:
        if name in draft.values:
            raise GraphError(f"{node.where} makes '{name}', which exists already")
        draft.origins[name] = node.where
    ops, repeats = len(draft.ops), len(draft.repeats)
    _apply(node)
    for name in proto.output:
        if name and name not in draft.values:
            draft.values[name] = draft.stated(name)
    if _fold(node, ops):
        del draft.ops[ops:], draft.repeats[repeats:]


def _apply(node: Node) -> None:
    """A rule assumes a valid node: what else it trips over is the file's fault and reported as such."""
    draft = node.draft
    function = RULES.get(node.key)
    inputs = [draft.values[name] for name in node.proto.input if name]
    strings = any(value.dtype is None and value.shape is not None for value in inputs)
    if function is None or strings:
        node.unmodelled()
        return
    first = len(draft.ops)
    try:
        function(node)
    except Undetermined:
        del draft.ops[first:]
        node.unmodelled()
    except HwsimError:
        raise
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise GraphError(f"{node.where} is malformed: {error}") from error


def _fold(node: Node, first: int) -> bool:
    """Whether the node leaves no op, because its results are known or fixed before a run."""
    draft = node.draft
    outputs = [name for name in node.proto.output if name]
    arrays = _evaluated(node, outputs)
    for name, array in zip(outputs, arrays, strict=False):
        draft.values[name] = replace(draft.values[name], shape=array.shape, array=array)
    if any(name in draft.outputs for name in outputs) or any(op.kind is Kind.UNKNOWN for op in draft.ops[first:]):
        return False
    constant = _is_constant(node)
    if constant:
        _bind_constants(node, outputs)
    return constant or all(draft.values[name].array is not None for name in outputs)


def _is_constant(node: Node) -> bool:
    inputs = [node.draft.values[name] for name in node.proto.input if name]
    if not inputs:
        return node.key == "Constant"
    return all(value.constant for value in inputs) and node.key not in _RANDOM


def _bind_constants(node: Node, outputs: list[str]) -> None:
    """The folded results take the place of the largest constant that they are made of."""
    draft = node.draft
    operands = node.operands()
    largest = max(operands, key=lambda name: prod(draft.values[name].shape or ()), default=None)
    for name in outputs:
        value = draft.values[name]
        stored = value.stored or (draft.values[largest].stored if largest is not None else None)
        draft.values[name] = replace(value, constant=True, stored=stored)
        if largest is not None:
            draft.bases.setdefault(name, largest)


def _evaluated(node: Node, outputs: list[str]) -> list[Array]:
    """The elements of the outputs, in order; none where they are many or only a run would tell."""
    values = node.draft.values
    shapes = [values[name].shape for name in outputs]
    if any(shape is None or prod(shape) > FEW for shape in shapes):
        return []
    if node.key in ("Shape", "Size"):
        shape = node.shape()
        kept = shape[node.integer("start") : node.integer("end", len(shape))]
        return [np.asarray(kept if node.key == "Shape" else prod(shape), dtype=np.int64)]
    feeds = {name: values[name].array for name in node.proto.input if name}
    if node.key == "CastLike" and node.dtype(1) in _NUMPY:
        # Only the type of the second operand matters, so it need not be known.
        feeds[node.name(1)] = np.zeros(1, _NUMPY[node.dtype(1)])
    if node.key == "OptionalHasElement":
        return [np.asarray(node.has(0))]
    if node.key not in _FOLDABLE or any(array is None for array in feeds.values()):
        return []
    with np.errstate(all="ignore"):
        try:
            results = ReferenceEvaluator(node.proto, opsets={"": node.version}).run(None, feeds)
        except Exception:  # whatever the reference does not do is simply not known
            return []
    return [np.asarray(result) for result in results]


@rule("If")
def _if(node: Node) -> None:
    """Only with a known condition: then its branch stands in the node's place."""
    condition = node.known(0)
    if condition is None or condition.size != 1:
        raise UnsupportedOpError(
            f"{node.where}: the condition '{node.name(0)}' depends on data, so the work is not fixed"
        )
    body = node.body("then_branch" if bool(condition.reshape(-1)[0]) else "else_branch")
    inline(node, body)
    draft = node.draft
    for output, result in zip(node.proto.output, body.output, strict=True):
        if result.name not in draft.values:
            raise GraphError(f"{node.where}: nothing makes '{result.name}' in its branch")
        draft.values[output] = draft.values[result.name]
        draft.bases[output] = result.name
        node.emit(Kind.VIEW, (result.name,), (output,))


def inline(node: Node, body: GraphProto) -> None:
    """The nodes of a subgraph, in the place of ``node``."""
    for tensor in body.initializer:
        node.draft.enter(tensor, tensor.name)
    for index, proto in enumerate(body.node):
        run(node.draft, proto, index)


@rule("Loop", "Scan", "SequenceMap")
def _loop(node: Node) -> None:
    raise UnsupportedOpError(f"{node.where}: loops are not imported; unroll it or export its body as one operator")


@rule("OptionalGetElement")
def _optional_element(node: Node) -> None:
    """Optionals are refused where they come in, so this is a tensor."""
    node.view(node.shape())


@rule("OptionalHasElement")
def _optional_has_element(node: Node) -> None:
    node.give(0, (), "bool")
    node.emit(Kind.FILL, (), numel=1)


@rule(
    "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength",
    "SplitToSequence", "ConcatFromSequence", "Optional", "ai.onnx.ml::ZipMap", "ai.onnx.ml::DictVectorizer",
    "ai.onnx.ml::CastMap",
)  # fmt: skip
def _not_a_tensor(node: Node) -> None:
    raise UnsupportedOpError(f"{node.where}: sequences, optionals and maps are no tensors")
