"""Rules of ONNX operators that reduce or normalise along axes: reductions, softmax, norms, losses."""

from __future__ import annotations

from math import prod

from hwsim.frontends.onnx_node import Node, Shape, rule
from hwsim.graph import Kind, Role

_REDUCTIONS = {
    "ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceL1": "norm", "ReduceL2": "norm", "ReduceLogSum": "sum", "ReduceLogSumExp": "logsumexp",
    "ReduceSumSquare": "norm",
}  # fmt: skip


@rule(*_REDUCTIONS)
def _reduce(node: Node) -> None:
    """No axes means all of them, unless `noop_with_empty_axes`; then the element's own function remains."""

    def shape() -> Shape:
        axes = node.option("axes", 1)
        if not axes:
            axes = () if node.integer("noop_with_empty_axes") else tuple(range(len(node.shape())))
        return _without(node, axes)

    result = node.result(shape)
    node.give(0, result)
    rows = prod(result)
    node.emit(
        Kind.REDUCE, (node.name(0),), function=_REDUCTIONS[node.key], rows=rows, cols=prod(node.shape()) // max(rows, 1)
    )


def _without(node: Node, axes: Shape) -> Shape:
    """The input's shape after a reduction along ``axes``."""
    old = node.shape()
    gone = {node.axis(axis, len(old)) for axis in axes}
    keep = node.integer("keepdims", 1)
    return tuple(1 if place in gone else size for place, size in enumerate(old) if keep or place not in gone)


@rule("ArgMax", "ArgMin")
def _arg_extreme(node: Node) -> None:
    shape = _without(node, (node.integer("axis"),))
    node.give(0, shape, "int64")
    node.emit(Kind.REDUCE, function="argmax", rows=prod(shape), cols=prod(node.shape()) // max(prod(shape), 1))


@rule("Hardmax")
def _hardmax(node: Node) -> None:
    rows, cols = _rows_and_cols(node)
    node.give(0, node.shape())
    node.emit(Kind.REDUCE, function="argmax", rows=rows, cols=cols)


@rule("Softmax", "LogSoftmax", "com.microsoft::QLinearSoftmax")
def _softmax(node: Node) -> None:
    rows, cols = _rows_and_cols(node)
    node.give(0, node.shape())
    node.emit(Kind.SOFTMAX, rows=rows, cols=cols)


def _rows_and_cols(node: Node) -> tuple[int, int]:
    """Along one axis; before operator set 13 along all axes from it on."""
    shape = node.shape()
    if not shape:
        return 1, 1
    older = node.version < 13 and not node.domain
    axis = node.axis(node.integer("axis", 1 if older else -1), len(shape))
    cols = prod(shape[axis:]) if older else shape[axis]
    return prod(shape) // max(cols, 1), cols


def normalised(node: Node, function: str, cols: int) -> None:
    """One norm op over rows of ``cols`` elements of the first input."""
    node.emit(Kind.NORM, function=function, rows=prod(node.shape()) // max(cols, 1), cols=cols)


@rule("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization")
def _layer_norm(node: Node) -> None:
    """Over the axes from `axis` on; mean and inverse deviation may come out as well."""
    shape = node.shape()
    axis = node.axis(node.integer("axis", -1), len(shape))
    node.give(0, shape)
    for index in (1, 2):
        node.give(index, (*shape[:axis], *(1 for _ in shape[axis:])), "fp32")
    normalised(node, "layernorm" if node.key == "LayerNormalization" else "rmsnorm", prod(shape[axis:]))


@rule("com.microsoft::SkipLayerNormalization", "com.microsoft::SkipSimplifiedLayerNormalization")
def _skip_layer_norm(node: Node) -> None:
    """The residual sum in front of the norm is part of the kernel; output 3 is that sum."""
    shape = node.shape()
    node.give(0, shape)
    for index in (1, 2):
        node.give(index, (*shape[:-1], 1), "fp32")
    node.give(3, shape)
    normalised(node, "rmsnorm" if "Simplified" in node.key else "layernorm", shape[-1])


@rule("com.microsoft::EmbedLayerNormalization")
def _embed_layer_norm(node: Node) -> None:
    """Words (table 2), positions (3) and segments (4) are picked, added and normalised; output 1 is a mask index."""
    batch, length = node.shape()
    width = node.shape(2)[-1]
    shape = (batch, length, width)
    dtype = node.dtype(2)
    picked = node.inner("words", shape, dtype)
    node.give(0, shape, dtype)
    node.give(1, (batch,), "int32")
    node.give(2, shape, dtype)
    node.emit(Kind.GATHER, (node.name(2), node.name(0)), (picked,), picks=batch * length, elements=width)
    inputs = (picked, *(node.name(index) for index in (3, 5, 6)))
    node.emit(Kind.NORM, inputs, function="layernorm", rows=batch * length, cols=width)


@rule("BatchNormalization")
def _batch_norm(node: Node) -> None:
    """Mean and variance (inputs 3 and 4) are not trained; in training mode their new values come out too."""
    shape = node.shape()
    channels = shape[1] if len(shape) > 1 else 1
    training = bool(node.integer("training_mode"))
    for index in (3, 4):
        if node.input(index).constant:
            node.draft.roles[node.name(index)] = Role.BUFFER
    node.give(0, shape)
    for index in range(1, len(node.proto.output)):
        node.give(index, (channels,), node.dtype(3))
    normalised(node, "batchnorm_train" if training else "batchnorm", prod(shape) // max(channels, 1))


@rule("InstanceNormalization", "GroupNormalization", "com.microsoft::GroupNorm")
def _group_norm(node: Node) -> None:
    """An instance norm has as many groups as channels (the contrib group norm keeps channels last)."""
    shape = node.shape()
    node.give(0, shape)
    channels = shape[-1] if node.domain else shape[1]
    groups = node.integer("num_groups", node.integer("groups", channels))
    normalised(node, "groupnorm", prod(shape) // max(shape[0] * groups, 1))


@rule("LpNormalization", "ai.onnx.ml::Normalizer")
def _lp_norm(node: Node) -> None:
    shape = node.shape()
    node.give(0, shape, "fp32" if node.domain else None)
    normalised(node, "l2norm", shape[node.axis(node.integer("axis", -1), len(shape))])


@rule("MeanVarianceNormalization")
def _mean_variance(node: Node) -> None:
    shape = node.shape()
    axes = node.sizes("axes")
    over = (0, 2, 3) if axes is None else axes
    node.give(0, shape)
    normalised(node, "layernorm", prod(shape[node.axis(axis, len(shape))] for axis in over))


@rule("LRN")
def _local_response(node: Node) -> None:
    """The sum of squares over `size` neighbouring channels dominates; the power behind it is left out."""
    node.give(0, node.shape())
    node.emit(Kind.REDUCE, function="norm", rows=prod(node.shape()), cols=node.integer("size"))


@rule("NegativeLogLikelihoodLoss")
def _nll_loss(node: Node) -> None:
    """One probability per target is picked; it and its weight are all that is calculated with."""
    targets = node.shape(1)
    reduced = node.text("reduction", "mean") != "none"
    node.give(0, () if reduced else targets)
    node.emit(Kind.REDUCE, function="loss", rows=1 if reduced else prod(targets), cols=prod(targets) if reduced else 1)


@rule("SoftmaxCrossEntropyLoss")
def _cross_entropy(node: Node) -> None:
    """A log-softmax over the classes (axis 1), then the likelihood of the targets."""
    shape, targets = node.shape(), node.shape(1)
    reduced = node.text("reduction", "mean") != "none"
    node.give(0, () if reduced else targets)
    node.give(1, shape)
    likelihood = node.proto.output[1] if node.makes(1) else node.inner("log_prob", shape, node.dtype())
    classes = max(shape[1], 1)
    node.emit(Kind.SOFTMAX, (node.name(0),), (likelihood,), rows=prod(shape) // classes, cols=classes)
    inputs = (likelihood, *(name for name in node.operands() if name != node.name(0)))
    node.emit(Kind.REDUCE, inputs, node.results()[:1], function="loss", rows=1, cols=prod(targets))
