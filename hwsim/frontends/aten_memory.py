"""Lowering of ops that move or make data: gather, scatter, copies, writes, fills, random numbers, sorts."""

from __future__ import annotations

from typing import Any

import torch

from hwsim.frontends.aten import Call, aten_ops, lowers
from hwsim.frontends.aten_layout import order, reordering
from hwsim.graph import Kind
from hwsim.sizes import Size, combine, product


@lowers("embedding index_select take gather nonzero_static")
def _gather(call: Call) -> None:
    table, *_ = call.inputs
    if call.info.name == "aten::embedding":
        elements = call.shape(table)[1]
        call.emit(Kind.GATHER, picks=call.numel(call.arg("indices")), elements=elements)
        return
    picked = call.numel(call.result)
    elements = _run(call, table, call.arg("dim")) if call.info.name == "aten::index_select" else 1
    call.emit(Kind.GATHER, picks=combine("//", picked, elements), elements=elements)


@lowers("index _unsafe_index _unsafe_masked_index")
def _index(call: Call) -> None:
    """Advanced indexing: what follows the last indexed dimension is contiguous."""
    _, elements = _selection(call)
    call.emit(Kind.GATHER, picks=combine("//", call.numel(call.result), elements), elements=elements)


@lowers("index_put _index_put_impl _unsafe_index_put")
def _index_put(call: Call) -> None:
    selected, elements = _selection(call)
    _scatter(call, combine("//", selected, elements), elements, "add" if call.arg("accumulate") else "set")


@lowers("index_copy index_add index_reduce index_fill")
def _index_write(call: Call) -> None:
    """Whole slices along one dimension: only these are touched."""
    target, index = call.args[0], call.arg("index")
    elements = _run(call, target, call.arg("dim"))
    size = call.shape(target)[_axis(target, call.arg("dim"))] if target.dim() else 1
    slices = combine("//", call.numel(target), combine("*", elements, size))
    function = {"aten::index_add": "add", "aten::index_reduce": "reduce"}.get(call.info.name, "set")
    _scatter(call, combine("*", slices, call.numel(index)), elements, function)


@lowers("scatter scatter_add scatter_reduce put")
def _scatter_elements(call: Call) -> None:
    reduces = call.info.name != "aten::scatter" or ("reduce" in call.info.positions and call.arg("reduce"))
    _scatter(call, call.numel(call.arg("index")), 1, "add" if reduces else "set")


def _scatter(call: Call, picks: Size, elements: Size, function: str) -> None:
    """The out-of-place forms copy their first operand before they scatter into it."""
    if not call.info.written:
        call.emit(Kind.COPY, [call.args[0]], [call.result], numel=call.numel(call.result), strided=False)
    inputs = [t for t in call.inputs if t is not call.args[0]]
    call.emit(Kind.SCATTER, inputs, picks=picks, elements=elements, function=function)


@lowers("select_scatter slice_scatter diagonal_scatter as_strided_scatter")
def _set_part(call: Call) -> None:
    """A copy in which a part is replaced."""
    part = call.args[1]
    call.emit(Kind.COPY, [call.args[0]], numel=call.numel(call.result), strided=False)
    call.emit(Kind.SCATTER, [part], picks=1, elements=call.numel(part), function="set")


@lowers("select_backward slice_backward diagonal_backward")
def _part_of_zeros(call: Call) -> None:
    part = call.args[0]
    call.emit(Kind.FILL, [], numel=call.numel(call.result))
    call.emit(Kind.SCATTER, [part], picks=1, elements=call.numel(part), function="set")


@lowers(
    "embedding_dense_backward unfold_backward max_pool2d_with_indices_backward max_pool3d_with_indices_backward "
    "adaptive_max_pool2d_backward adaptive_max_pool3d_backward max_unpool2d max_unpool3d "
    "fractional_max_pool2d_backward fractional_max_pool3d_backward"
)
def _added_to_zeros(call: Call) -> None:
    """Zeros to which the elements (rows, of an embedding) of the first operand are added."""
    part = call.args[0]
    elements = call.shape(part)[-1] if "embedding" in call.info.name else 1
    call.emit(Kind.FILL, [], numel=call.numel(call.result))
    picks = combine("//", call.numel(part), elements)
    call.emit(Kind.SCATTER, picks=picks, elements=elements, function="add")


@lowers("_embedding_bag_backward")
def _embedding_bag_backward(call: Call) -> None:
    """Zeros to which each picked row of the table gets the gradient of its bag."""
    rows = call.numel(call.arg("indices"))
    call.emit(Kind.FILL, [], numel=call.numel(call.result))
    call.emit(Kind.SCATTER, picks=rows, elements=call.shape(call.result)[1], function="add")


@lowers(
    "clone cat repeat stack constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d "
    "replication_pad2d replication_pad3d roll flip rot90 tril triu pixel_shuffle pixel_unshuffle channel_shuffle "
    "im2col col2im unfold_copy repeat_interleave lift copy lift_fresh_copy diag_embed block_diag "
    "upsample_nearest1d upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d "
    "_upsample_nearest_exact3d view_as_real_copy trace complex polar _reshape_copy expand_copy permute_copy"
)
def _copy(call: Call) -> None:
    result = call.result
    layout: dict[str, Any] = {
        "strided": call.info.name in _REORDERING or any(order(t) != order(result) for t in call.inputs)
    }
    if call.info.name == "aten::clone":
        layout = reordering(call.inputs[0], result)
    call.emit(Kind.COPY, numel=call.numel(result), **layout)


_REORDERING = aten_ops("roll flip rot90 pixel_shuffle pixel_unshuffle im2col col2im")


@lowers("_to_copy")
def _to_copy(call: Call) -> None:
    """A change of format is a cast; without one only the layout changes, or the device, which is no part of a graph."""
    source, result = call.args[0], call.result
    if source.dtype != result.dtype:
        call.emit(Kind.ELEMENTWISE, function="cast", numel=call.numel(result))
    elif order(source) != order(result):
        call.emit(Kind.COPY, numel=call.numel(result), **reordering(source, result))
    else:
        call.sink.alias(result, source)


@lowers("copy_")
def _write(call: Call) -> None:
    call.emit(Kind.WRITE, [call.args[1]], numel=call.numel(call.result))


@lowers(
    "fill zero full full_like zeros zeros_like ones ones_like new_zeros new_ones new_full arange linspace "
    "logspace eye scalar_tensor tril_indices triu_indices _efficientzerotensor hann_window hamming_window"
)
def _fill(call: Call) -> None:
    call.emit(Kind.FILL, [], numel=call.numel(call.result))


@lowers(
    "as_strided transpose t squeeze unsqueeze empty empty_like empty_strided new_empty new_empty_strided "
    "empty_permuted resize set detach record_stream"
)
def _nothing(call: Call) -> None:
    """Memory without contents, another layout in place, or bookkeeping: nothing runs."""
    call.emit(Kind.VIEW, [])


@lowers(
    "rand randn rand_like randn_like randint randint_like randperm bernoulli normal uniform exponential random "
    "log_normal cauchy geometric poisson multinomial normal_functional rrelu_with_noise native_dropout "
    "_fused_dropout"
)
def _random(call: Call) -> None:
    call.emit(Kind.RANDOM, numel=call.numel(call.result))


@lowers("sort topk kthvalue mode _unique2 unique_dim unique_consecutive searchsorted bucketize median nanmedian")
def _sort(call: Call) -> None:
    """Along one dimension; a search in a sorted row is a logarithmic walk for each value."""
    x = next(t for t in call.inputs if t.numel() == max(u.numel() for u in call.inputs))
    dim = call.arg("dim") if "dim" in call.info.positions else -1
    cols = call.shape(x)[_axis(x, dim)] if x.dim() else 1
    call.emit(Kind.SORT, rows=combine("//", call.numel(x), cols), cols=cols)


@lowers("cumsum cumprod cummax cummin logcumsumexp _cummax_helper _cummin_helper")
def _scan(call: Call) -> None:
    x = call.args[0]
    cols = call.shape(x)[_axis(x, call.arg("dim"))] if x.dim() else 1
    function = call.info.name.removeprefix("aten::")
    call.emit(Kind.SCAN, function=function, rows=combine("//", call.numel(x), cols), cols=cols)


@lowers("_fft_r2c _fft_c2c _fft_c2r")
def _fft(call: Call) -> None:
    x = call.args[0] if call.args[0].numel() >= call.result.numel() else call.result
    cols = product(call.shape(x)[_axis(x, dim)] for dim in call.arg("dim"))
    call.emit(Kind.FFT, rows=combine("//", call.numel(x), cols), cols=cols)


def _axis(tensor: torch.Tensor, dim: int | None) -> int:
    return (-1 if dim is None else dim) % max(tensor.dim(), 1)


def _run(call: Call, tensor: torch.Tensor, dim: int) -> Size:
    """Contiguous elements behind one index of ``dim``."""
    return product(call.shape(tensor)[_axis(tensor, dim) + 1 :])


def _selection(call: Call) -> tuple[Size, Size]:
    """Of advanced indexing: the number of selected elements, and how many follow the last indexed dimension.

    A mask takes as many dimensions as it has, and selects at most all of them.
    """
    shape = list(call.shape(call.args[0]))
    kept: list[Size] = []
    indices: list[torch.Tensor] = []
    position = last = 0
    for index in call.arg("indices"):
        if index is None:
            kept.append(shape[position])
            position += 1
            continue
        indices.append(index.flatten() if index.dtype in (torch.bool, torch.uint8) else index)
        position = last = position + (index.dim() if index.dtype in (torch.bool, torch.uint8) else 1)
    broadcast: Any = torch.broadcast_shapes
    picked = map(call.sink.size, broadcast(*(index.shape for index in indices)))
    return product([*kept, *shape[position:], *picked]), product(shape[last:])
