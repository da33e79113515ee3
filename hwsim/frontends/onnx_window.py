"""Rules of ONNX operators that slide a window: convolutions (quantised, transposed, deformable) and pooling."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwsim.errors import GraphError
from hwsim.frontends.onnx_matrix import units
from hwsim.frontends.onnx_node import Node, Shape, rule
from hwsim.graph import Kind


@dataclass(frozen=True, slots=True)
class Window:
    """Kernel, strides, dilations and padding, one entry per spatial axis."""

    kernel: Shape
    strides: Shape
    dilations: Shape
    begins: Shape
    ends: Shape
    auto_pad: str
    ceil_mode: bool

    def out_size(self, sizes: Shape) -> Shape:
        """Positions of the window over a grid of ``sizes``."""
        return tuple(self._positions(axis, size) for axis, size in enumerate(sizes))

    def _positions(self, axis: int, size: int) -> int:
        stride = self.strides[axis]
        span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        if self.auto_pad.startswith("SAME"):
            return -(-size // stride)
        begin, end = (0, 0) if self.auto_pad == "VALID" else (self.begins[axis], self.ends[axis])
        room = size + begin + end - span
        if not self.ceil_mode:
            return room // stride + 1
        positions = -(-room // stride) + 1
        # A window that starts in the padding behind the data is dropped.
        return positions - 1 if (positions - 1) * stride >= size + begin else positions


def window_of(node: Node, kernel: Shape | None = None) -> Window:
    """The window that the attributes describe; convolutions know its kernel from their weight."""
    kernel = node.sizes("kernel_shape") or kernel or ()
    ones = (1,) * len(kernel)
    pads = node.sizes("pads") or (0,) * 2 * len(kernel)
    strides, dilations = node.sizes("strides") or ones, node.sizes("dilations") or ones
    if (
        not kernel
        or len(pads) != 2 * len(kernel)
        or not len(strides) == len(dilations) == len(kernel)
        or min(strides) < 1
    ):
        raise GraphError(
            f"{node.where}: kernel {list(kernel)}, strides {list(strides)} and pads {list(pads)} do not go together"
        )
    begins, ends = pads[: len(kernel)], pads[len(kernel) :]
    auto_pad = node.text("auto_pad", "NOTSET")
    return Window(kernel, strides, dilations, begins, ends, auto_pad, bool(node.integer("ceil_mode")))


@dataclass(frozen=True, slots=True)
class _Operands:
    """Where a convolution keeps its data and weight, and the format of its result."""

    data: int
    weight: int
    dtype: str


def _convolution(node: Node, operands: _Operands) -> None:
    """X [N, C, *in] with W [O, C/g, *kernel]."""
    batch, channels, *sizes = node.shape(operands.data)
    out_channels, per_group, *kernel = node.shape(operands.weight)
    groups = node.integer("group", 1)
    if channels != per_group * groups:
        raise GraphError(f"{node.where}: {channels} channels are not {groups} groups of {per_group}")
    positions = window_of(node, tuple(kernel)).out_size(tuple(sizes))
    node.give(0, (batch, out_channels, *positions), operands.dtype)
    node.emit(
        Kind.CONV, batch=batch, in_channels=channels, out_channels=out_channels, groups=groups, in_size=tuple(sizes),
        out_size=positions, kernel=tuple(kernel), transposed=False, direction="forward",
        compute=units(node.input(operands.data), node.input(operands.weight)),
    )  # fmt: skip


@rule("Conv", "com.microsoft::FusedConv")
def _conv(node: Node) -> None:
    _convolution(node, _Operands(0, 1, node.dtype()))


@rule("ConvInteger")
def _conv_integer(node: Node) -> None:
    _convolution(node, _Operands(0, 1, "int32"))


@rule("QLinearConv")
def _qlinear_conv(node: Node) -> None:
    """X, W and Y are each followed by scale and zero point; the bias comes last."""
    _convolution(node, _Operands(0, 3, node.dtype(7)))


@rule("ConvTranspose")
def _conv_transpose(node: Node) -> None:
    """W is [C, O/g, *kernel]; `output_shape`, when stated, replaces the padding."""
    batch, channels, *sizes = node.shape()
    weight = node.shape(1)
    groups = node.integer("group", 1)
    window = window_of(node, weight[2:])
    extra = node.sizes("output_padding") or (0,) * len(sizes)
    stated = node.sizes("output_shape")
    same = window.auto_pad.startswith("SAME")
    pads = [0 if window.auto_pad == "VALID" else b + e for b, e in zip(window.begins, window.ends, strict=True)]
    spans = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    parts = zip(sizes, window.strides, spans, extra, pads, strict=True)
    grown = tuple(s * size if same else (size - 1) * s + span + more - pad for size, s, span, more, pad in parts)
    positions = stated[-len(sizes) :] if stated else grown
    node.give(0, (batch, weight[1] * groups, *positions))
    node.emit(
        Kind.CONV, batch=batch, in_channels=channels, out_channels=weight[1] * groups, groups=groups,
        in_size=tuple(sizes), out_size=positions, kernel=weight[2:], transposed=True, direction="forward",
        compute=units(node.input(0), node.input(1)),
    )  # fmt: skip


@rule("DeformConv")
def _deform_conv(node: Node) -> None:
    """The taps are sampled bilinearly at the offsets (3 interpolations each), then convolved."""
    batch, channels, *sizes = node.shape()
    weight = node.shape(1)
    positions = window_of(node, weight[2:]).out_size(tuple(sizes))
    columns = (batch, channels * prod(weight[2:]), *positions)
    node.give(0, (batch, weight[0], *positions))
    sampled = node.inner("columns", columns, node.dtype())
    node.emit(Kind.ELEMENTWISE, (node.name(0), node.name(2)), (sampled,), function="lerp", numel=3 * prod(columns))
    node.emit(
        Kind.CONV, (sampled, node.name(1)), batch=batch, in_channels=channels, out_channels=weight[0],
        groups=node.integer("group", 1), in_size=tuple(sizes), out_size=positions, kernel=weight[2:], transposed=False,
        direction="forward",
    )  # fmt: skip


_POOLS = {
    "MaxPool": "max_pool",
    "AveragePool": "avg_pool",
    "LpPool": "norm",
    "com.microsoft::QLinearAveragePool": "avg_pool",
}
_GLOBAL_POOLS = {
    "GlobalMaxPool": "max_pool", "GlobalAveragePool": "avg_pool", "GlobalLpPool": "norm",
    "com.microsoft::QLinearGlobalAveragePool": "avg_pool",
}  # fmt: skip


@rule(*_POOLS)
def _pool(node: Node) -> None:
    window = window_of(node)
    shape = (*node.shape()[:2], *window.out_size(node.shape()[2:]))
    if len(shape) != len(node.shape()) or len(window.kernel) != len(shape) - 2:
        raise GraphError(f"{node.where}: kernel {list(window.kernel)} does not suit rank {len(node.shape())}")
    node.give(0, shape)
    node.give(1, shape, "int64")
    node.emit(Kind.REDUCE, function=_POOLS[node.key], rows=prod(shape), cols=prod(window.kernel))


@rule(*_GLOBAL_POOLS)
def _global_pool(node: Node) -> None:
    shape = node.shape()
    node.give(0, (*shape[:2], *(1 for _ in shape[2:])))
    node.emit(Kind.REDUCE, function=_GLOBAL_POOLS[node.key], rows=prod(shape[:2]), cols=prod(shape[2:]))
