"""Rules of ONNX operators that only say where elements lie: views, copies and fills.

What is free and what moves, as ONNX runtimes have it: Reshape, Squeeze, Unsqueeze, Flatten and Identity rename a
buffer (views). Transpose, Concat, Split, Expand, Tile and Pad write a new one (copies), and Slice reads just the
part that it keeps (a gather of contiguous runs). On constants all of them are done when the model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import ceil, floor, prod

import numpy as np

from hwsim.errors import GraphError
from hwsim.frontends.onnx_cache import Append, append, is_cache
from hwsim.frontends.onnx_elementwise import element_format
from hwsim.frontends.onnx_node import Node, Shape, Undetermined, broadcast, rule
from hwsim.graph import Kind, Role


def copied(node: Node, compute: Callable[[], Iterable[int]], strided: bool = False) -> None:
    """The first input copied into another shape."""
    shape = node.result(compute)
    node.give(0, shape)
    node.emit(Kind.COPY, (node.name(0),), numel=prod(shape), strided=strided)


@rule("Identity")
def _identity(node: Node) -> None:
    node.view(node.shape())


@rule("Reshape")
def _reshape(node: Node) -> None:
    node.view(node.result(lambda: _reshaped(node)))


def _reshaped(node: Node) -> Shape:
    """0 keeps a size (unless `allowzero`), -1 takes what is left."""
    old = node.shape()
    wanted = list(node.option("shape", 1) or ())
    if not node.integer("allowzero"):
        wanted = [old[place] if size == 0 else size for place, size in enumerate(wanted)]
    if wanted.count(-1) == 1:
        rest = prod(size for size in wanted if size != -1)
        wanted[wanted.index(-1)] = prod(old) // rest if rest else 0
    if prod(wanted) != prod(old) or min(wanted, default=0) < 0:
        raise GraphError(f"{node.where}: cannot reshape {'x'.join(map(str, old))} into {wanted}")
    return tuple(wanted)


@rule("Flatten")
def _flatten(node: Node) -> None:
    axis = node.integer("axis", 1)
    axis += len(node.shape()) if axis < 0 else 0
    node.view((prod(node.shape()[:axis]), prod(node.shape()[axis:])))


@rule("Squeeze")
def _squeeze(node: Node) -> None:
    def shape() -> Shape:
        old = node.shape()
        axes = node.option("axes", 1)
        dropped = (
            {node.axis(axis, len(old)) for axis in axes}
            if axes is not None
            else {i for i, n in enumerate(old) if n == 1}
        )
        if any(old[place] != 1 for place in dropped):
            raise GraphError(f"{node.where}: cannot squeeze axes {sorted(dropped)} of {'x'.join(map(str, old))}")
        return tuple(size for place, size in enumerate(old) if place not in dropped)

    node.view(node.result(shape))


@rule("Unsqueeze")
def _unsqueeze(node: Node) -> None:
    def shape() -> Shape:
        axes = node.option("axes", 1) or ()
        rank = len(node.shape()) + len(axes)
        added = {node.axis(axis, rank) for axis in axes}
        sizes = iter(node.shape())
        return tuple(1 if place in added else next(sizes) for place in range(rank))

    node.view(node.result(shape))


@rule("Transpose")
def _transpose(node: Node) -> None:
    """Swapping only axes of size 1 moves nothing."""
    old = node.shape()
    order = node.sizes("perm") or tuple(reversed(range(len(old))))
    if sorted(order) != list(range(len(old))):
        raise GraphError(f"{node.where}: {list(order)} is no order of {len(old)} axes")
    long = [axis for axis in order if old[axis] != 1]
    if long == sorted(long):
        node.view([old[axis] for axis in order])
    else:
        copied(node, lambda: (old[axis] for axis in order), strided=True)


@rule("Expand")
def _expand(node: Node) -> None:
    copied(node, lambda: broadcast(node, node.shape(), node.ints(1)))


@rule("Tile")
def _tile(node: Node) -> None:
    copied(node, lambda: (size * times for size, times in zip(node.shape(), node.ints(1), strict=True)))


@rule("Pad")
def _pad(node: Node) -> None:
    """`pads` lists all begins, then all ends, of the named axes (all of them by default)."""

    def shape() -> Shape:
        sizes = list(node.shape())
        pads = node.option("paddings" if node.version == 1 else "pads", 1) or ()
        axes = node.ints(3) if node.has(3) else range(len(sizes))
        for place, axis in enumerate(axes):
            sizes[node.axis(axis, len(sizes))] += pads[place] + pads[place + len(pads) // 2]
        return tuple(sizes)

    copied(node, shape)


@rule("Concat", "com.microsoft::QLinearConcat")
def _concat(node: Node) -> None:
    """Onto a graph input that comes out again, as a cache does: only the new rows are written."""
    quantised = node.key != "Concat"
    parts = [index for index in range(len(node.proto.input)) if not quantised or index % 3 == 2]
    first = node.shape(parts[0])
    axis = node.axis(node.integer("axis", 1), len(first))
    for other in (node.shape(part) for part in parts):
        if other[:axis] != first[:axis] or other[axis + 1 :] != first[axis + 1 :] or not other:
            text = " and ".join("x".join(map(str, shape)) for shape in (first, other))
            raise GraphError(f"{node.where}: {text} do not join along axis {axis}")
    total = sum(node.shape(part)[axis] for part in parts)
    shape = (*first[:axis], total, *first[axis + 1 :])
    if len(parts) == 2 and is_cache(node, node.name(0), 0):
        append(node, Append(node.name(0), node.name(1), 0, shape, node.shape(1)))
    else:
        node.give(0, shape, node.dtype(parts[0]))
        node.emit(Kind.COPY, numel=prod(shape), strided=False)


@rule("Split")
def _split(node: Node) -> None:
    """Into the listed parts, or into equal ones of which the last may be smaller."""
    old = node.shape()
    axis = node.axis(node.integer("axis"), len(old))
    count = len(node.proto.output)
    parts = _split_sizes(node, old[axis], axis)
    if sum(parts) != old[axis] or len(parts) != count:
        raise GraphError(f"{node.where}: {list(parts)} does not split {old[axis]} into {count} outputs")
    for index, size in enumerate(parts):
        node.give(index, (*old[:axis], size, *old[axis + 1 :]))
    node.emit(Kind.COPY, (node.name(0),), numel=prod(old), strided=axis > 0)


def _split_sizes(node: Node, length: int, axis: int) -> Shape:
    """As listed, else as stated of the outputs, else equal."""
    count = len(node.proto.output)
    if node.has(1) and node.known(1) is None:
        stated = [node.stated(index) for index in range(count)]
        if any(shape is None for shape in stated):
            raise Undetermined
        return tuple(shape[axis] for shape in stated if shape is not None)
    listed = node.option("split", 1)
    size = -(-length // count)
    return listed if listed is not None else tuple(min(size, max(0, length - place * size)) for place in range(count))


@rule("Slice")
def _slice(node: Node) -> None:
    """Reads only what it keeps, in runs that are contiguous behind the last cut axis."""
    old = node.shape()
    new = node.result(lambda: _sliced(node))
    node.give(0, new)
    cut = [place for place, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
    run = prod(new[cut[-1] :]) if cut else prod(new)
    node.emit(Kind.GATHER, (node.name(0),), picks=prod(new) // run if run else 0, elements=run)


def _sliced(node: Node) -> Shape:
    """Python's own slices clamp as ONNX's do, but for a negative step that ends in front of the first element."""
    sizes = list(node.shape())
    starts, ends = node.option("starts", 1) or (), node.option("ends", 2) or ()
    axes = node.option("axes", 3) or range(len(starts))
    steps = node.ints(4) if node.has(4) else (1,) * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        place = node.axis(axis, len(sizes))
        stop = None if step < 0 and end < -sizes[place] else end
        sizes[place] = len(range(*slice(start, stop, step).indices(sizes[place])))
    return tuple(sizes)


@rule("DepthToSpace")
def _depth_to_space(node: Node) -> None:
    n, c, h, w = node.shape()
    block = node.integer("blocksize")
    copied(node, lambda: (n, c // block**2, h * block, w * block), strided=True)


@rule("SpaceToDepth")
def _space_to_depth(node: Node) -> None:
    n, c, h, w = node.shape()
    block = node.integer("blocksize")
    copied(node, lambda: (n, c * block**2, h // block, w // block), strided=True)


@rule("ReverseSequence")
def _reverse_sequence(node: Node) -> None:
    copied(node, node.shape, strided=True)


def filled(node: Node, compute: Callable[[], Iterable[int]], dtype: str) -> None:
    """A new tensor written without reading any but indices."""
    shape = node.result(compute)
    node.give(0, shape, dtype)
    node.emit(Kind.FILL, numel=prod(shape))


@rule("ConstantOfShape")
def _constant_of_shape(node: Node) -> None:
    value = node.attribute("value")
    filled(node, lambda: node.ints(0), "fp32" if value is None else element_format(node, value.t.data_type))


@rule("Range")
def _range(node: Node) -> None:
    def shape() -> Shape:
        start, limit, delta = (node.floats(index)[0] for index in range(3))
        return (max(0, ceil((limit - start) / delta)),)

    filled(node, shape, node.dtype())


@rule("EyeLike")
def _eye_like(node: Node) -> None:
    number = node.integer("dtype")
    filled(node, node.shape, element_format(node, number) if number else node.dtype())


@rule("HannWindow", "HammingWindow", "BlackmanWindow")
def _cosine_window(node: Node) -> None:
    """A cosine (for Blackman's two) per sample; the length is the value of input 0."""
    shape = node.result(lambda: node.ints(0))
    node.give(0, shape, element_format(node, node.integer("output_datatype", 1)))
    node.emit(Kind.ELEMENTWISE, (), function="cos", numel=prod(shape) * (2 if node.key == "BlackmanWindow" else 1))


@rule("Shape")
def _shape(node: Node) -> None:
    rank = len(node.shape())
    kept = range(rank)[node.integer("start") : node.integer("end", rank)]
    node.give(0, (len(kept),), "int64")
    node.emit(Kind.FILL, (), numel=len(kept))


@rule("Size")
def _size(node: Node) -> None:
    node.give(0, (), "int64")
    node.emit(Kind.FILL, (), numel=1)


@rule("OneHot")
def _one_hot(node: Node) -> None:
    def shape() -> Shape:
        old = node.shape()
        axis = node.axis(node.integer("axis", -1), len(old) + 1)
        return (*old[:axis], node.ints(1)[0], *old[axis:])

    filled(node, shape, node.dtype(2))


def _sample(node: Node, reads: tuple[str, ...], mode: str, shape: Shape, dimensions: int) -> None:
    """A grid resampled into ``shape``: copied, interpolated (2^d - 1 times each), or weighted by cubic polynomials."""
    node.give(0, shape)
    if mode == "nearest":
        node.emit(Kind.COPY, reads, numel=prod(shape), strided=True)
    elif mode in ("cubic", "bicubic"):
        numel = prod(shape) * 4 ** max(0, dimensions - 1)
        node.emit(Kind.ELEMENTWISE, reads, function="polynomial", numel=numel)
    else:
        node.emit(Kind.ELEMENTWISE, reads, function="lerp", numel=prod(shape) * max(1, 2**dimensions - 1))


@rule("Resize", "Upsample")
def _resize(node: Node) -> None:
    """Regions and scales are parameters of the operator, whatever else they look like."""
    for index in range(1, len(node.proto.input)):
        if node.has(index) and node.input(index).constant:
            node.draft.roles[node.name(index)] = Role.BUFFER
    shape = node.result(lambda: _resized(node))
    scaled = sum(1 for a, b in zip(node.shape(), shape, strict=True) if a != b)
    _sample(node, (node.name(0),), node.text("mode", "nearest"), shape, scaled)


def _resized(node: Node) -> Shape:
    """By `sizes` (input 3), or by `scales` (input 2; input 1 before operator set 11, an attribute before 9)."""
    old = list(node.shape())
    axes = [node.axis(axis, len(old)) for axis in node.sizes("axes") or range(len(old))]
    if node.has(3):
        wanted = dict(zip(axes, node.ints(3), strict=True))
        policy = node.text("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            ratios = [size / old[axis] for axis, size in wanted.items()]
            scale = min(ratios) if policy == "not_larger" else max(ratios)
            wanted = {axis: floor(scale * old[axis] + 0.5) for axis in axes}
    else:
        stated = node.attribute("scales")
        place = 1 if node.version < 11 else 2
        scales = tuple(stated.floats) if stated is not None else node.floats(place)
        spans = (
            _spans(node, axes)
            if node.text("coordinate_transformation_mode") == "tf_crop_and_resize"
            else [1.0] * len(axes)
        )
        # In single precision, as runtimes multiply.
        triples = zip(axes, scales, spans, strict=True)
        wanted = {
            axis: floor(np.float32(old[axis]) * np.float32(span) * np.float32(scale)) for axis, scale, span in triples
        }
    return tuple(wanted.get(place, size) for place, size in enumerate(old))


def _spans(node: Node, axes: list[int]) -> list[float]:
    """The fraction of each axis that the region of interest (input 1: all starts, then all ends) covers."""
    roi = node.floats(1)
    return [end - start for start, end in zip(roi[: len(axes)], roi[len(axes) :], strict=True)]


@rule("GridSample")
def _grid_sample(node: Node) -> None:
    n, c, *sizes = node.shape()
    grid = node.shape(1)
    if grid[-1] != len(sizes):
        raise GraphError(f"{node.where}: a grid of {grid[-1]} coordinates does not suit {len(sizes)} axes")
    _sample(node, node.operands(), node.text("mode", "linear"), (n, c, *grid[1:-1]), len(sizes))
