"""Lowering of ops that move or make data: gather, scatter, copies, writes, fills, random numbers, sorts."""

from __future__ import annotations

import torch

from hwsim.frontends.aten import Call, lowers
from hwsim.graph import Kind
from hwsim.sizes import Size, combine, product


@lowers("embedding", "index_select", "take", "gather", "take_along_dim", "nonzero_static")
def _gather(call: Call) -> None:
    table, *_ = call.inputs
    if call.info.name == "aten::embedding":
        elements = call.shape(table)[1]
        call.emit(Kind.GATHER, picks=call.numel(call.arg("indices")), elements=elements)
        return
    picked = call.numel(call.result)
    elements = _run(call, table, call.arg("dim")) if call.info.name == "aten::index_select" else 1
    call.emit(Kind.GATHER, picks=combine("//", picked, elements), elements=elements)


@lowers("index", "_unsafe_index", "_unsafe_masked_index")
def _index(call: Call) -> None:
    """Advanced indexing: what follows the last indexed dimension is contiguous."""
    table = call.args[0]
    elements = _after_indices(call, table)
    call.emit(Kind.GATHER, picks=combine("//", call.numel(call.result), elements), elements=elements)


@lowers("index_put", "_index_put_impl", "_unsafe_index_put", "index_put_")
def _index_put(call: Call) -> None:
    values = call.arg("values")
    elements = _after_indices(call, call.args[0])
    written = _indexed(call)
    function = "add" if call.arg("accumulate") else "set"
    _scatter(call, combine("//", written, elements), elements, function, values)


@lowers("index_copy", "index_add", "index_reduce", "index_fill")
def _index_write(call: Call) -> None:
    """Whole slices along one dimension: only these are touched."""
    target, index = call.args[0], call.arg("index")
    elements = _run(call, target, call.arg("dim"))
    size = call.shape(target)[_axis(target, call.arg("dim"))] if target.dim() else 1
    slices = combine("//", call.numel(target), combine("*", elements, size))
    function = {"aten::index_add": "add", "aten::index_reduce": "reduce"}.get(call.info.name, "set")
    _scatter(call, combine("*", slices, call.numel(index)), elements, function)


@lowers("scatter", "scatter_add", "scatter_reduce", "put")
def _scatter_elements(call: Call) -> None:
    reduces = call.info.name != "aten::scatter" or ("reduce" in call.info.positions and call.arg("reduce"))
    _scatter(call, call.numel(call.arg("index")), 1, "add" if reduces else "set")


def _scatter(call: Call, picks: Size, elements: Size, function: str, values: torch.Tensor | None = None) -> None:
    """The out-of-place forms copy their first operand before they scatter into it."""
    if not call.info.written:
        call.emit(Kind.COPY, [call.args[0]], [call.result], numel=call.numel(call.result), strided=False)
    inputs = [t for t in call.inputs if t is not call.args[0]]
    call.emit(Kind.SCATTER, inputs, picks=picks, elements=elements, function=function)


@lowers("embedding_dense_backward", "select_backward", "slice_backward", "diagonal_backward", "unfold_backward",
        "select_scatter", "slice_scatter", "diagonal_scatter", "as_strided_scatter", "max_pool2d_with_indices_backward",
        "max_pool3d_with_indices_backward", "adaptive_max_pool2d_backward", "adaptive_max_pool3d_backward",
        "max_unpool2d", "max_unpool3d", "fractional_max_pool2d_backward",
        "fractional_max_pool3d_backward", "index_select_backward", "_adaptive_max_pool1d_backward")  # fmt: skip
def _into_zeros(call: Call) -> None:
    """A tensor of zeros (or a copy) in which a part is set or accumulated."""
    part = call.args[1] if call.info.name.endswith("_scatter") else call.args[0]
    if call.info.name.endswith("_scatter"):
        call.emit(Kind.COPY, [call.args[0]], numel=call.numel(call.result), strided=False)
    else:
        call.emit(Kind.FILL, [], numel=call.numel(call.result))
    if call.info.name in _PLAIN_WRITES:
        call.emit(Kind.SCATTER, [part], picks=1, elements=call.numel(part), function="set")
        return
    elements = call.shape(part)[-1] if "embedding" in call.info.name else 1
    picks = combine("//", call.numel(part), elements)
    call.emit(Kind.SCATTER, picks=picks, elements=elements, function="add")


@lowers("_embedding_bag_backward")
def _embedding_bag_backward(call: Call) -> None:
    rows = call.numel(call.arg("indices"))
    call.emit(Kind.FILL, [], numel=call.numel(call.result))
    call.emit(Kind.SCATTER, picks=rows, elements=call.shape(call.result)[1], function="add")


_PLAIN_WRITES = frozenset(
    f"aten::{name}" for name in ("select_backward", "slice_backward", "diagonal_backward", "select_scatter",
                                 "slice_scatter", "diagonal_scatter", "as_strided_scatter")
)  # fmt: skip


@lowers("clone", "cat", "repeat", "stack", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d",
        "replication_pad1d", "replication_pad2d", "replication_pad3d", "roll", "flip", "rot90", "tril", "triu",
        "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col", "col2im", "unfold_copy", "repeat_interleave",
        "lift", "copy", "lift_fresh_copy", "diag_embed", "block_diag", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
        "_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "view_as_real_copy",
        "trace", "complex", "polar", "native_channel_shuffle", "_reshape_copy", "expand_copy", "permute_copy")  # fmt: skip
def _copy(call: Call) -> None:
    result = call.result
    strided = call.info.name in _REORDERING or any(_order(t) != _order(result) for t in call.inputs)
    call.emit(Kind.COPY, numel=call.numel(result), strided=strided)


_REORDERING = frozenset(f"aten::{name}" for name in ("roll", "flip", "rot90", "pixel_shuffle", "pixel_unshuffle", "im2col", "col2im"))


@lowers("contiguous", "_to_copy")
def _to_copy(call: Call) -> None:
    """A change of format is a cast; without one, only the layout or the device changes (the latter is no part of a graph)."""
    source, result = call.args[0], call.result
    if source.dtype != result.dtype:
        call.emit(Kind.ELEMENTWISE, function="cast", numel=call.numel(result))
    elif _order(source) != _order(result):
        call.emit(Kind.COPY, numel=call.numel(result), strided=True)
    else:
        call.sink.alias(result, source)


@lowers("copy_")
def _write(call: Call) -> None:
    call.emit(Kind.WRITE, [call.args[1]], numel=call.numel(call.result))


@lowers("fill", "zero", "full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "new_zeros", "new_ones", "new_full",
        "arange", "linspace", "logspace", "eye", "scalar_tensor", "tril_indices", "triu_indices", "_efficientzerotensor",
        "hann_window", "hamming_window", "vander")  # fmt: skip
def _fill(call: Call) -> None:
    call.emit(Kind.FILL, [], numel=call.numel(call.result))


@lowers("as_strided", "transpose", "t", "squeeze", "unsqueeze", "swapaxes", "swapdims", "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "resize", "set", "detach",
        "record_stream", "_has_compatible_shallow_copy_type", "_version")  # fmt: skip
def _nothing(call: Call) -> None:
    """Memory without contents, another layout in place, or bookkeeping: nothing runs."""
    call.emit(Kind.VIEW, [])


@lowers("rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm", "bernoulli", "normal", "uniform",
        "exponential", "random", "log_normal", "cauchy", "geometric", "poisson", "multinomial", "normal_functional",
        "rrelu_with_noise", "native_dropout", "_fused_dropout")  # fmt: skip
def _random(call: Call) -> None:
    call.emit(Kind.RANDOM, numel=call.numel(call.result))


@lowers("sort", "argsort", "topk", "kthvalue", "msort", "mode", "_unique2", "unique_dim", "unique_consecutive", "searchsorted",
        "bucketize", "median", "nanmedian")  # fmt: skip
def _sort(call: Call) -> None:
    """Along one dimension; a search in a sorted row is a logarithmic walk for each value."""
    x = next(t for t in call.inputs if t.numel() == max(u.numel() for u in call.inputs))
    dim = call.arg("dim") if "dim" in call.info.positions else -1
    cols = call.shape(x)[_axis(x, dim)] if x.dim() else 1
    call.emit(Kind.SORT, rows=combine("//", call.numel(x), cols), cols=cols)


@lowers("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "_cummax_helper", "_cummin_helper")
def _scan(call: Call) -> None:
    x = call.args[0]
    cols = call.shape(x)[_axis(x, call.arg("dim"))] if x.dim() else 1
    function = call.info.name.removeprefix("aten::")
    call.emit(Kind.SCAN, function=function, rows=combine("//", call.numel(x), cols), cols=cols)


@lowers("_fft_r2c", "_fft_c2c", "_fft_c2r")
def _fft(call: Call) -> None:
    x = call.args[0] if call.args[0].numel() >= call.result.numel() else call.result
    cols = product(call.shape(x)[_axis(x, dim)] for dim in call.arg("dim"))
    call.emit(Kind.FFT, rows=combine("//", call.numel(x), cols), cols=cols)


def _axis(tensor: torch.Tensor, dim: int | None) -> int:
    return (-1 if dim is None else dim) % max(tensor.dim(), 1)


def _run(call: Call, tensor: torch.Tensor, dim: int) -> Size:
    """Contiguous elements behind one index of ``dim``."""
    return product(call.shape(tensor)[_axis(tensor, dim) + 1 :])


def _after_indices(call: Call, tensor: torch.Tensor) -> Size:
    """Elements behind the last indexed dimension; a mask takes as many dimensions as it has."""
    indices = call.arg("indices")
    indexed = 0
    for position, index in enumerate(indices):
        if index is not None:
            indexed = position + (index.dim() if index.dtype in (torch.bool, torch.uint8) else 1)
    return product(call.shape(tensor)[indexed:])


def _indexed(call: Call) -> Size:
    """The number of elements that an index_put writes."""
    target, indices = call.args[0], call.arg("indices")
    kept = [size for size, index in zip(call.shape(target), indices, strict=False) if index is None]
    rest = call.shape(target)[len(indices) :]
    shapes = [index.shape for index in indices if index is not None]
    picked = map(call.sink.size, torch.broadcast_shapes(*shapes))
    return product([*kept, *rest, *picked])


def _order(tensor: torch.Tensor) -> list[int]:
    """The order of dimensions in memory, outermost first; broadcast ones and those of one element are left out."""
    dims = [dim for dim in range(tensor.dim()) if tensor.shape[dim] != 1 and tensor.stride(dim) != 0]
    return sorted(dims, key=lambda dim: (-tensor.stride(dim), dim))
