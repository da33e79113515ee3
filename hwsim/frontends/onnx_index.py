"""Rules of ONNX operators that pick, place and order elements by index.

Where the number of elements depends on data (NonZero, Unique, Compress, NonMaxSuppression) the file's own shape is
taken, else the largest that can come out.
"""

from __future__ import annotations

from math import prod

from hwsim.frontends.onnx_node import Node, Shape, rule
from hwsim.graph import Kind


def _gathered(node: Node, shape: Shape, run: int) -> None:
    """Output 0 is picked from input 0 in contiguous runs."""
    node.give(0, shape)
    node.emit(
        Kind.GATHER,
        (node.name(0), *(n for n in node.operands() if n != node.name(0))),
        picks=prod(shape) // run if run else 0,
        elements=run,
    )


@rule("Gather")
def _gather(node: Node) -> None:
    table, picks = node.shape(0), node.shape(1)
    axis = node.axis(node.integer("axis"), len(table))
    _gathered(node, (*table[:axis], *picks, *table[axis + 1 :]), prod(table[axis + 1 :]))


@rule("GatherElements", "ai.onnx.ml::ArrayFeatureExtractor")
def _gather_elements(node: Node) -> None:
    picks = node.shape(1)
    shape = picks if node.key == "GatherElements" else (*(node.shape()[:-1] or (1,)), prod(picks))
    _gathered(node, shape, 1)


@rule("GatherND")
def _gather_nd(node: Node) -> None:
    table, picks = node.shape(0), node.shape(1)
    inner = table[node.integer("batch_dims") + picks[-1] :]
    _gathered(node, (*picks[:-1], *inner), prod(inner))


@rule("Compress")
def _compress(node: Node) -> None:
    old = node.shape()
    axis = node.attribute("axis")
    mask = node.known(1)
    count = node.shape(1)[0] if mask is None else int(mask.sum())
    if axis is None:
        _gathered(node, _bounded(node, (min(count, prod(old)),)), 1)
        return
    place = node.axis(axis.i, len(old))
    shape = _bounded(node, (*old[:place], min(count, old[place]), *old[place + 1 :]))
    _gathered(node, shape, prod(old[place + 1 :]))


def _bounded(node: Node, largest: Shape, index: int = 0) -> Shape:
    """The stated shape of an output whose size depends on data, else the largest possible."""
    stated = node.stated(index)
    return largest if stated is None or len(stated) != len(largest) else stated


@rule("ScatterElements", "Scatter")
def _scatter_elements(node: Node) -> None:
    _scattered(node, prod(node.shape(2)), 1, node.text("reduction", "none") != "none")


@rule("ScatterND")
def _scatter_nd(node: Node) -> None:
    run = prod(node.shape()[node.shape(1)[-1] :])
    _scattered(node, prod(node.shape(1)[:-1]), run, node.text("reduction", "none") != "none")


def _scattered(node: Node, picks: int, run: int, accumulates: bool) -> None:
    """In place where nobody else reads the data, as runtimes reuse the buffer; else behind a copy of it."""
    data, output = node.name(0), node.proto.output[0]
    draft = node.draft
    cache = data in draft.inputs and output in draft.outputs
    alone = data not in draft.inputs and not node.input().constant and len(draft.readers.get(data, ())) == 1
    node.give(0, node.shape())
    if cache or alone:
        draft.bases[output] = data
        if cache:
            draft.state(data)
    else:
        node.emit(Kind.COPY, (data,), numel=prod(node.shape()), strided=False)
    inputs = [name for name in node.operands() if name != data]
    node.emit(Kind.SCATTER, inputs, picks=picks, elements=run, function="add" if accumulates else "set")


@rule("MaxUnpool")
def _max_unpool(node: Node) -> None:
    """`output_shape` (input 2), else the inverse of the pooling."""

    def shape() -> Shape:
        if node.has(2):
            return node.ints(2)
        old = node.shape()
        kernel = node.sizes("kernel_shape") or ()
        strides = node.sizes("strides") or (1,) * len(kernel)
        pads = node.sizes("pads") or (0,) * 2 * len(kernel)
        ends = pads[len(kernel) :]
        windows = zip(old[2:], kernel, strides, pads, ends, strict=False)
        return (*old[:2], *((size - 1) * s + k - begin - end for size, k, s, begin, end in windows))

    node.give(0, node.result(shape))
    node.emit(Kind.SCATTER, picks=prod(node.shape()), elements=1, function="set")


@rule("Col2Im")
def _col2im(node: Node) -> None:
    """Overlapping blocks add up."""
    n, columns, _ = node.shape()
    shape = node.result(lambda: (n, columns // prod(node.ints(2)), *node.ints(1)))
    node.give(0, shape)
    node.emit(Kind.SCATTER, (node.name(0),), picks=prod(node.shape()), elements=1, function="add")


@rule("CumSum", "CumProd")
def _cumulative(node: Node) -> None:
    """Along the axis in input 1; where it is not known, any axis costs the same."""
    shape = node.shape()
    axis = node.known(1)
    cols = shape[node.axis(int(axis.reshape(-1)[0]), len(shape))] if axis is not None else max(shape, default=1)
    node.give(0, shape)
    function = "sum" if node.key == "CumSum" else "prod"
    node.emit(Kind.SCAN, (node.name(0),), function=function, rows=prod(shape) // max(cols, 1), cols=cols)


@rule("TopK")
def _top_k(node: Node) -> None:
    old = node.shape()
    axis = node.axis(node.integer("axis", -1), len(old))

    def shape() -> Shape:
        count = node.ints(1)[0] if node.has(1) else node.integer("k")
        return (*old[:axis], count, *old[axis + 1 :])

    picked = node.result(shape)
    node.give(0, picked)
    node.give(1, picked, "int64")
    node.emit(Kind.SORT, (node.name(0),), rows=prod(old) // max(old[axis], 1), cols=old[axis])


@rule("NonZero")
def _non_zero(node: Node) -> None:
    shape = node.shape()
    node.give(0, _bounded(node, (len(shape), prod(shape))), "int64")
    node.emit(Kind.SCAN, function="sum", rows=1, cols=prod(shape))


@rule("Unique")
def _unique(node: Node) -> None:
    """Sorted along the axis (over all elements without one); indices, inverse and counts come with it."""
    old = node.shape()
    axis = node.attribute("axis")
    place = None if axis is None else node.axis(axis.i, len(old))
    length = prod(old) if place is None else old[place]
    largest = (length,) if place is None else old
    node.give(0, _bounded(node, largest))
    for index in (1, 2, 3):
        node.give(index, (length,) if index == 2 else _bounded(node, (length,), index), "int64")
    node.emit(Kind.SORT, rows=prod(old) // max(length, 1), cols=length)


@rule("NonMaxSuppression")
def _non_max_suppression(node: Node) -> None:
    """Boxes of each class in order of their scores; at most `max_output_boxes_per_class` of each come out."""
    batch, classes, boxes = node.shape(1)
    limit = node.known(2)
    most = boxes if limit is None else min(boxes, int(limit.reshape(-1)[0]))
    node.give(0, _bounded(node, (batch * classes * max(most, 0), 3)), "int64")
    node.emit(Kind.SORT, rows=batch * classes, cols=boxes)


@rule("MaxRoiPool", "RoiAlign")
def _region_pool(node: Node) -> None:
    """Each region of input 1 becomes a small grid; RoiAlign samples bilinearly, 4 taps a point."""
    channels = node.shape()[1]
    regions = node.shape(1)[0]
    if node.key == "MaxRoiPool":
        grid = node.sizes("pooled_shape") or (1, 1)
        taps = max(1, prod(node.shape()[2:]) // max(1, prod(grid)))
    else:
        grid = (node.integer("output_height", 1), node.integer("output_width", 1))
        taps = 4 * max(1, node.integer("sampling_ratio")) ** 2
    shape = (regions, channels, *grid)
    node.give(0, shape)
    node.emit(Kind.REDUCE, function="max_pool" if node.key == "MaxRoiPool" else "avg_pool", rows=prod(shape), cols=taps)


@rule("DFT")
def _dft(node: Node) -> None:
    """The last axis holds real and imaginary parts; a one-sided spectrum keeps half of the frequencies."""
    old = node.shape()
    onesided, inverse = bool(node.integer("onesided")), bool(node.integer("inverse"))

    def axis_and_length() -> tuple[int, int]:
        given = node.ints(2)[0] if node.has(2) else node.integer("axis", -2 if node.version >= 20 else 1)
        axis = node.axis(given, len(old))
        implied = 2 * (old[axis] - 1) if onesided and inverse else old[axis]
        return axis, node.ints(1)[0] if node.has(1) else implied

    def shape() -> Shape:
        axis, length = axis_and_length()
        kept = length // 2 + 1 if onesided and not inverse else length
        sizes = [*old[:-1], 1 if onesided and inverse else 2]
        sizes[axis] = kept
        return tuple(sizes)

    result = node.result(shape)
    node.give(0, result)
    # Which axis is transformed may be known to a run only; then the longest one.
    known = all(node.known(index) is not None for index in (1, 2) if node.has(index))
    cols = axis_and_length()[1] if known else max((*old[:-1], *result[:-1]))
    node.emit(Kind.FFT, (node.name(0),), rows=prod(old[:-1]) // max(min(cols, prod(old[:-1])), 1), cols=cols)


@rule("STFT")
def _stft(node: Node) -> None:
    """One transform of `frame_length` every `frame_step` samples."""
    signal = node.shape()

    def length() -> int:
        return node.ints(3)[0] if node.has(3) else node.shape(2)[0]

    def shape() -> Shape:
        frames = 1 + (signal[1] - length()) // node.ints(1)[0]
        return (signal[0], frames, length() // 2 + 1 if node.integer("onesided", 1) else length(), 2)

    result = node.result(shape)
    node.give(0, result)
    cols = 2 * (result[2] - 1) if node.integer("onesided", 1) else result[2]
    node.emit(Kind.FFT, rows=prod(result[:2]), cols=max(cols, 1))


@rule("com.microsoft::GatherBlockQuantized")
def _gather_block_quantized(node: Node) -> None:
    """Rows of a quantised table, dequantised as they come: the stored width is read."""
    table, picks = node.shape(0), node.shape(1)
    axis = node.axis(node.integer("gather_axis"), len(table))
    shape = (*table[:axis], *picks, *table[axis + 1 :])
    node.give(0, shape, node.dtype(2))
    node.emit(Kind.GATHER, picks=prod(picks) * prod(table[:axis]), elements=prod(table[axis + 1 :]))
