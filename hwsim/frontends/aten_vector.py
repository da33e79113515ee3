"""Lowering of elementwise ops, reductions, norms, softmax and pooling."""

from __future__ import annotations

import torch

from hwsim.frontends.aten import Call, lowers
from hwsim.frontends.aten_layout import addressing
from hwsim.graph import Kind
from hwsim.sizes import Size, combine, product

# Function in the table of work -> the ops that calculate it.
_ELEMENTWISE: dict[str, str] = {
    "add": "add rsub _foreach_add",
    "sub": "sub",
    "mul": "mul",
    "div": "div",
    "neg": "neg",
    "abs": "abs",
    "maximum": "maximum fmax",
    "minimum": "minimum fmin",
    "clamp": "clamp clamp_min clamp_max hardshrink softshrink threshold nan_to_num",
    "relu": "relu",
    "leaky_relu": "leaky_relu _prelu_kernel",
    "compare": "eq ne lt le gt ge isnan isinf isposinf isneginf signbit heaviside",
    "where": "where masked_fill masked_scatter",
    "logical": "logical_and logical_or logical_not logical_xor",
    "bitwise": (
        "bitwise_and bitwise_or bitwise_xor bitwise_not bitwise_left_shift bitwise_right_shift __lshift__ __rshift__"
    ),
    "round": "floor ceil round trunc frac",
    "sign": "sign sgn copysign",
    "lerp": "lerp addcmul",
    "fma": "addcdiv",
    "exp": "exp exp2 expm1",
    "log": "log log2 log10 log1p",
    "sqrt": "sqrt",
    "rsqrt": "rsqrt",
    "reciprocal": "reciprocal",
    "pow": "pow xlogy",
    "sin": "sin sinc",
    "cos": "cos",
    "tan": "tan",
    "tanh": "tanh",
    "erf": "erf erfc",
    "trigonometric": "asin acos atan atan2 sinh cosh asinh acosh atanh hypot angle",
    "sigmoid": "sigmoid hardsigmoid",
    "silu": "silu",
    "elu": "elu celu",
    "softplus": "softplus log_sigmoid_forward logit logaddexp logaddexp2",
    "mish": "mish",
    "hardtanh": "hardtanh",
    "hardswish": "hardswish",
    "glu": "glu",
    "remainder": "remainder fmod floor_divide",
    "quantize": "quantize_per_tensor",
    "dequantize": "dequantize",
    "dropout": "native_dropout_backward",
    "lgamma": "lgamma digamma polygamma igamma igammac",
    "special": (
        "erfinv i0 special_i0e special_i1 special_i1e special_ndtri special_xlog1py special_zeta special_erfcx "
        "special_entr special_log_ndtr"
    ),
    "polynomial": (
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa "
        "_upsample_bicubic2d_aa grid_sampler_2d grid_sampler_3d affine_grid_generator grid_sampler_2d_backward "
        "grid_sampler_3d_backward upsample_linear1d_backward upsample_bilinear2d_backward "
        "upsample_trilinear3d_backward upsample_bicubic2d_backward _upsample_bilinear2d_aa_backward "
        "_upsample_bicubic2d_aa_backward"
    ),
    "activation_backward": (
        "threshold_backward gelu_backward silu_backward sigmoid_backward tanh_backward elu_backward "
        "hardtanh_backward hardswish_backward hardsigmoid_backward softplus_backward log_sigmoid_backward "
        "leaky_relu_backward _prelu_kernel_backward glu_backward hardshrink_backward softshrink_backward "
        "logit_backward rrelu_with_noise_backward"
    ),
    "loss": (
        "mse_loss_backward smooth_l1_loss_backward huber_loss_backward binary_cross_entropy_backward "
        "binary_cross_entropy_with_logits soft_margin_loss_backward multi_margin_loss_backward nll_loss_backward "
        "nll_loss2d_backward multilabel_margin_loss_backward _ctc_loss_backward"
    ),
}

# Reductions over `dim` (all dimensions where it is absent or empty).
_REDUCTIONS: dict[str, str] = {
    "sum": "sum nansum count_nonzero",
    "mean": "mean",
    "max": "max amax",
    "min": "min amin aminmax",
    "prod": "prod",
    "argmax": "argmax argmin",
    "var": "var std var_mean std_mean",
    "norm": "linalg_vector_norm norm renorm",
    "logsumexp": "logsumexp",
    "any": "any all",
    "histogram": "histc bincount histogram",
    "loss": (
        "nll_loss_forward nll_loss2d_forward mse_loss smooth_l1_loss huber_loss binary_cross_entropy "
        "soft_margin_loss multi_margin_loss multilabel_margin_loss_forward _ctc_loss"
    ),
    "distance": "_cdist_forward _pdist_forward _cdist_backward _pdist_backward _euclidean_dist",
}


def _names(table: dict[str, str]) -> dict[str, str]:
    return {f"aten::{op}": function for function, ops in table.items() for op in ops.split()}


_FUNCTION_OF = _names(_ELEMENTWISE)
_REDUCTION_OF = _names(_REDUCTIONS)


@lowers(*_FUNCTION_OF)
def _elementwise(call: Call) -> None:
    """Work goes with the result's elements; a division that rounds costs as much as a remainder."""
    function = _FUNCTION_OF[call.info.name]
    if function == "div" and "rounding_mode" in call.info.positions and call.arg("rounding_mode") is not None:
        function = "remainder"
    call.emit(Kind.ELEMENTWISE, function=function, numel=call.numel(call.result), **addressing(call))


@lowers("gelu")
def _gelu(call: Call) -> None:
    function = "gelu_tanh" if call.arg("approximate") == "tanh" else "gelu"
    call.emit(Kind.ELEMENTWISE, function=function, numel=call.numel(call.result), **addressing(call))


@lowers(*_REDUCTION_OF)
def _reduce(call: Call) -> None:
    """`max` and `min` of two tensors are elementwise."""
    function, x = _REDUCTION_OF[call.info.name], call.args[0]
    if call.info.name in ("aten::max", "aten::min") and "other" in call.info.positions:
        call.emit(Kind.ELEMENTWISE, function=f"{function}imum", numel=call.numel(call.result))
        return
    rows = call.numel(call.result)
    call.emit(Kind.REDUCE, function=function, rows=rows, cols=_ratio(call, x, call.result))


def _ratio(call: Call, x: torch.Tensor, result: torch.Tensor) -> Size:
    """Elements of ``x`` for each of ``result``, at least 1: equal sizes cancel."""
    above, below = list(call.shape(x)), []
    for size in call.shape(result):
        if size in above:
            above.remove(size)
        else:
            below.append(size)
    quotient = combine("//", product(above), product(below))
    return max(quotient, 1) if isinstance(quotient, int) else quotient


@lowers(
    "_softmax _log_softmax _safe_softmax _softmax_backward_data _log_softmax_backward_data _masked_softmax "
    "_masked_softmax_backward"
)
def _softmax(call: Call) -> None:
    x = call.args[0]
    dim = call.arg("dim")
    cols = call.shape(x)[-1 if dim is None else dim] if x.dim() else 1
    rows = combine("//", call.numel(x), cols)
    call.emit(Kind.SOFTMAX, rows=rows, cols=cols, backward="backward" in call.info.name)


@lowers("native_layer_norm native_layer_norm_backward")
def _layer_norm(call: Call) -> None:
    shape = tuple(map(call.sink.size, call.arg("normalized_shape")))
    x = call.arg("input")
    rows = product(call.shape(x)[: x.dim() - len(shape)])
    call.emit(Kind.NORM, function="layernorm", rows=rows, cols=product(shape), backward="backward" in call.info.name)


@lowers("hwsim_trace::rms_norm hwsim_trace::rms_norm_backward")
def _rms_norm(call: Call) -> None:
    x, weight = call.arg("x"), call.arg("weight")
    cols = call.numel(weight) if weight is not None else call.shape(x)[-1]
    rows = combine("//", call.numel(x), cols)
    call.emit(Kind.NORM, function="rmsnorm", rows=rows, cols=cols, backward="backward" in call.info.name)


@lowers("native_group_norm native_group_norm_backward")
def _group_norm(call: Call) -> None:
    batch, channels, space, groups = (call.sink.size(call.arg(name)) for name in ("N", "C", "HxW", "group"))
    cols = combine("*", combine("//", channels, groups), space)
    rows = combine("*", batch, groups)
    call.emit(Kind.NORM, function="groupnorm", rows=rows, cols=cols, backward="backward" in call.info.name)


@lowers(
    "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_no_training cudnn_batch_norm "
    "_batch_norm_with_update _batch_norm_no_update native_batch_norm_backward batch_norm_backward "
    "cudnn_batch_norm_backward"
)
def _batch_norm(call: Call) -> None:
    backward = "backward" in call.info.name
    x = call.args[1] if backward else call.args[0]
    batch, channels, *space = call.shape(x)
    flags = [call.arg(name) for name in ("training", "train", "update") if name in call.info.positions]
    training = any(flags) or "with_update" in call.info.name
    function = "batchnorm_train" if training else "batchnorm"
    call.emit(Kind.NORM, function=function, rows=channels, cols=product([batch, *space]), backward=backward)


@lowers(
    "max_pool2d_with_indices max_pool3d_with_indices avg_pool2d avg_pool3d fractional_max_pool2d "
    "fractional_max_pool3d mkldnn_max_pool2d"
)
def _pool(call: Call) -> None:
    window = call.arg("kernel_size")
    dims = 3 if "3d" in call.info.name else 2
    taps: Size = product(window) if len(window) == dims else int(window[0]) ** dims
    call.emit(Kind.REDUCE, function=_pooling(call), rows=call.numel(call.result), cols=taps)


@lowers("_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool2d adaptive_max_pool3d")
def _adaptive_pool(call: Call) -> None:
    x = call.args[0]
    call.emit(Kind.REDUCE, function=_pooling(call), rows=call.numel(call.result), cols=_ratio(call, x, call.result))


@lowers("avg_pool2d_backward avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward")
def _pool_backward(call: Call) -> None:
    call.emit(Kind.ELEMENTWISE, function="mul", numel=call.numel(call.result))


@lowers(
    "upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward "
    "_upsample_nearest_exact1d_backward _upsample_nearest_exact2d_backward _upsample_nearest_exact3d_backward "
    "reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward replication_pad1d_backward "
    "replication_pad2d_backward replication_pad3d_backward"
)
def _repetition_backward(call: Call) -> None:
    """The gradients of all copies of an element, added."""
    cols = _ratio(call, call.args[0], call.result)
    call.emit(Kind.REDUCE, function="sum", rows=call.numel(call.result), cols=cols)


@lowers("_weight_norm_interface _weight_norm_interface_backward")
def _weight_norm(call: Call) -> None:
    backward = "backward" in call.info.name
    v, g = call.args[1:3] if backward else call.args[:2]
    call.emit(Kind.NORM, function="l2norm", rows=call.numel(g), cols=_ratio(call, v, g), backward=backward)


def _pooling(call: Call) -> str:
    return "max_pool" if "max" in call.info.name else "avg_pool"


@lowers("_embedding_bag _embedding_bag_forward_only")
def _embedding_bag(call: Call) -> None:
    """Rows of a table, picked and added."""
    table, indices = call.args[:2]
    call.emit(Kind.GATHER, picks=call.numel(indices), elements=call.shape(table)[1])


@lowers(
    "linalg_solve_triangular triangular_solve linalg_cholesky_ex cholesky linalg_inv_ex linalg_lu_factor_ex "
    "linalg_lu linalg_ldl_factor_ex linalg_lu_solve _linalg_solve_ex linalg_qr _linalg_svd _linalg_eigh "
    "linalg_eig _linalg_det _linalg_slogdet cholesky_solve cholesky_inverse linalg_householder_product ormqr "
    "geqrf"
)
def _dense_algebra(call: Call) -> None:
    """Factorisations and solves of n x n matrices: about n multiply-adds, on average half of them, an element."""
    call.emit(Kind.REDUCE, function="sum", rows=call.numel(call.result), cols=call.shape(call.args[0])[-1])
