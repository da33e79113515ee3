"""Lowering of matrix products, convolutions, attention and recurrences."""

from __future__ import annotations

from typing import Any

import torch

from hwsim.frontends.aten import Call, lowers
from hwsim.frontends.aten_layout import dense, order, packed
from hwsim.graph import Kind
from hwsim.sizes import product


@lowers("mm _int_mm addmm addmv mv dot vdot addr _scaled_mm _addmm_activation _scaled_mm_v2")
def _matmul(call: Call) -> None:
    first, second = _factors(call)
    *rows, k = call.shape(first)
    columns = call.shape(second)[1:]
    if call.info.name == "aten::addr":
        rows, k, columns = [k], 1, call.shape(second)
    call.emit(Kind.MATMUL, _factors_first(call), batch=1, m=product(rows), n=product(columns), k=k)


@lowers("bmm baddbmm")
def _batched(call: Call) -> None:
    first, second = _factors(call)
    batch, m, k = call.shape(first)
    call.emit(Kind.MATMUL, _factors_first(call), batch=batch, m=m, n=call.shape(second)[2], k=k)


@lowers("_grouped_mm _scaled_grouped_mm")
def _grouped(call: Call) -> None:
    """Rows spread over the matrices of experts; two matrices give one product a group (the weights' gradient)."""
    (*groups, m, k), (*experts, _, n) = map(call.shape, _factors(call))
    if experts and not groups:
        call.emit(Kind.MATMUL, batch=1, m=m, n=n, k=k, experts=experts[0])
    else:
        call.emit(Kind.MATMUL, batch=product(groups if experts else []), m=m, n=n, k=k)


@lowers("hwsim::grouped_matmul transformers::grouped_mm_fallback")
def _grouped_custom(call: Call) -> None:
    """x [rows, k], weight [experts, ...]: every row meets the matrix of its expert."""
    x, weight = _factors(call)
    (rows, k), experts = call.shape(x), call.shape(weight)[0]
    call.emit(Kind.MATMUL, batch=1, m=rows, n=call.shape(call.result)[1], k=k, experts=experts)


@lowers("hwsim::grouped_matmul_backward")
def _grouped_custom_backward(call: Call) -> None:
    """Rows back through the matrix of their expert, and one outer product an expert."""
    grad, x, weight, of_row = call.args[:4]
    (rows, n), (_, k) = call.shape(grad), call.shape(x)
    experts = call.shape(weight)[0]
    call.emit(Kind.MATMUL, [grad, weight, of_row], [call.out[0]], batch=1, m=rows, n=k, k=n, experts=experts)
    call.emit(Kind.MATMUL, [grad, x, of_row], [call.out[1]], batch=1, m=n, n=k, k=rows)


@lowers("_trilinear")
def _trilinear(call: Call) -> None:
    """Of nn.Bilinear: three factors, broadcast along the dimensions that each lacks, multiplied and summed."""
    lacking = [call.arg(f"expand{index}") for index in (1, 2, 3)]
    full = list(call.shape(_unsqueezed(call.args[0], lacking[0])))
    for factor, dims in zip(call.args[1:3], lacking[1:], strict=True):
        shape = call.shape(_unsqueezed(factor, dims))
        full = [other if size == 1 else size for size, other in zip(full, shape, strict=True)]
    summed = set(call.arg("sumdim"))
    rows = product(size for dim, size in enumerate(full) if dim not in summed)
    call.emit(Kind.MATMUL, batch=1, m=rows, n=1, k=product(full[dim] for dim in summed))


def _unsqueezed(tensor: torch.Tensor, dims: list[int]) -> torch.Tensor:
    for dim in sorted(dims):
        tensor = tensor.unsqueeze(dim)
    return tensor


def _factors(call: Call) -> tuple[torch.Tensor, torch.Tensor]:
    """The two factors, after the summand of the add forms."""
    skip = 1 if "add" in call.info.name else 0
    return call.args[skip], call.args[skip + 1]


def _factors_first(call: Call) -> list[torch.Tensor]:
    """Operands with the factors in front, as mappers expect them."""
    factors = _factors(call)
    return [*factors, *(t for t in call.inputs if not any(t is factor for factor in factors))]


@lowers("convolution _convolution cudnn_convolution convolution_overrideable")
def _conv(call: Call) -> None:
    x, weight = call.args[0], call.args[1]
    operands = [_in_a_format(call, x), *(tensor for tensor in call.inputs if tensor is not x)]
    call.emit(Kind.CONV, operands, **_conv_attrs(call, x, weight, call.result), direction="forward")


def _in_a_format(call: Call, x: torch.Tensor) -> torch.Tensor:
    """Images with channels last are taken as they are, others and sequences with channels first."""
    channels_last = [0, *range(2, x.dim()), 1]
    last = x.dim() > 3 and dense(x) and order(x) == [dim for dim in channels_last if dim in order(x)]
    return x if last else packed(call, x)


@lowers("convolution_backward")
def _conv_backward(call: Call) -> None:
    grad, x, weight = call.args[:3]
    attrs = _conv_attrs(call, x, weight, grad)
    x_grad, weight_grad, bias_grad = call.out
    if x_grad is not None:
        call.emit(Kind.CONV, [grad, weight], [x_grad], **attrs, direction="grad_input")
    if weight_grad is not None:
        call.emit(Kind.CONV, [grad, x], [weight_grad], **attrs, direction="grad_weight")
    if bias_grad is not None:
        batch, channels, *space = call.shape(grad)
        call.emit(Kind.REDUCE, [grad], [bias_grad], function="sum", rows=channels, cols=product([batch, *space]))


def _conv_attrs(call: Call, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> dict[str, Any]:
    (batch, inputs, *in_size), (_, outputs, *out_size) = call.shape(x), call.shape(out)
    return {
        "batch": batch, "in_channels": inputs, "out_channels": outputs, "groups": call.arg("groups"),
        "in_size": tuple(in_size), "out_size": tuple(out_size), "kernel": call.shape(weight)[2:],
        "transposed": bool(call.arg("transposed")),
    }  # fmt: skip


@lowers(
    "hwsim_trace::attention hwsim::attention _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math_for_mps"
)
def _attention(call: Call) -> None:
    q, k, v = call.args[:3]
    call.emit(Kind.ATTENTION, **_attention_attrs(call, q, k, v))


@lowers(
    "hwsim_trace::attention_backward hwsim::attention_backward _scaled_dot_product_flash_attention_backward "
    "_scaled_dot_product_efficient_attention_backward _scaled_dot_product_cudnn_attention_backward "
    "_scaled_dot_product_flash_attention_for_cpu_backward"
)
def _attention_backward(call: Call) -> None:
    q, k, v = call.args[1:4]
    call.emit(Kind.ATTENTION, **_attention_attrs(call, q, k, v), backward=True)


def _attention_attrs(call: Call, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> dict[str, Any]:
    *batch, heads, q_len, head_dim = call.shape(q)
    *_, kv_heads, kv_len, _ = call.shape(k)
    causal = next((call.arg(name) for name in ("causal", "is_causal") if name in call.info.positions), False)
    window = call.arg("window") if "window" in call.info.positions else 0
    return {
        "batch": product(batch), "heads": heads, "kv_heads": kv_heads, "q_len": q_len, "kv_len": kv_len,
        "head_dim": head_dim, "v_dim": call.shape(v)[-1], "causal": bool(causal), "window": call.sink.size(window),
    }  # fmt: skip


@lowers("hwsim::recurrence")
def _recurrence(call: Call) -> None:
    """Libraries take contiguous operands; queries and keys that heads share are copied to each of them instead."""
    q, _, v = call.args[:3]
    operands = [x if x.dim() == v.dim() and x.shape[2] != v.shape[2] else packed(call, x) for x in call.inputs]
    attrs = _recurrence_attrs(call, q, v, call.arg("rule"), call.arg("chunk"))
    call.emit(Kind.RECURRENCE, operands, **attrs)


@lowers("hwsim::recurrence_backward")
def _recurrence_backward(call: Call) -> None:
    q, v = call.arg("q"), call.arg("v")
    attrs = _recurrence_attrs(call, q, v, call.arg("rule"), call.arg("chunk"))
    call.emit(Kind.RECURRENCE, **attrs, backward=True)


def _recurrence_attrs(call: Call, q: torch.Tensor, v: torch.Tensor, rule: str, chunk: int) -> dict[str, Any]:
    batch, tokens, heads, d_v = call.shape(v)
    return {
        "rule": rule, "batch": batch, "tokens": tokens, "heads": heads, "d_k": call.shape(q)[-1], "d_v": d_v,
        "chunk": 0 if tokens == 1 else chunk,
    }  # fmt: skip


@lowers("hwsim::selective_scan")
def _selective_scan(call: Call) -> None:
    call.emit(Kind.RECURRENCE, **_scan_attrs(call))


@lowers("hwsim::selective_scan_backward")
def _selective_scan_backward(call: Call) -> None:
    call.emit(Kind.RECURRENCE, **_scan_attrs(call), backward=True)


def _scan_attrs(call: Call) -> dict[str, Any]:
    """A state of N numbers for each channel: d_k = N, d_v = 1."""
    batch, tokens, channels = call.shape(call.arg("x"))
    states = call.shape(call.arg("A"))[1]
    return {"rule": "mamba1", "batch": batch, "tokens": tokens, "heads": channels, "d_k": states, "d_v": 1, "chunk": 0}
