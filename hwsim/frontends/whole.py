"""Functions that eager PyTorch runs as one kernel on an accelerator, kept as one op in a trace.

On the meta device scaled_dot_product_attention, rms_norm and dropout fall apart into their parts before a dispatch
mode sees them. While `kept_whole` is active, the dispatcher calls the opaque ops below instead; they carry their
own backward, so that the gradient is one op too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

NAMESPACE = "hwsim_trace"

_ops: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
_ops.define("attention(Tensor q, Tensor k, Tensor v, Tensor? mask, bool causal) -> (Tensor out, Tensor logsumexp)")
_ops.define(
    "attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor logsumexp, Tensor? mask, "
    "bool causal, bool mask_grad) -> (Tensor, Tensor, Tensor, Tensor?)"
)
_ops.define("rms_norm(Tensor x, Tensor? weight, SymInt cols) -> (Tensor out, Tensor scale)")
_ops.define("rms_norm_backward(Tensor grad, Tensor x, Tensor? weight, Tensor scale) -> (Tensor, Tensor?)")


def _attention_result(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> tuple[Tensor, Tensor]:
    # The kernels lay the result out as [batch, tokens, heads, dim], so that joining the heads is a view.
    *batch, heads, tokens, _ = q.shape
    out = q.new_empty(*batch, tokens, heads, v.shape[-1]).transpose(-2, -3)
    return out, q.new_empty(q.shape[:-1], dtype=torch.float32)


def _attention_grads(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    mask: Tensor | None,
    causal: bool,
    mask_grad: bool,
) -> tuple[Tensor | None, ...]:
    grads = tuple(torch.empty_like(operand) for operand in (q, k, v))
    return *grads, torch.empty_like(mask) if mask is not None and mask_grad else None


def _rms_norm_result(x: Tensor, weight: Tensor | None, cols: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), x.new_empty(x.shape[:-1], dtype=torch.float32)


def _rms_norm_grads(grad: Tensor, x: Tensor, weight: Tensor | None, scale: Tensor) -> tuple[Tensor, Tensor | None]:
    return torch.empty_like(x), None if weight is None else torch.empty_like(weight)


for _name, _function in {
    "attention": _attention_result,
    "attention_backward": _attention_grads,
    "rms_norm": _rms_norm_result,
    "rms_norm_backward": _rms_norm_grads,
}.items():
    _ops.impl(_name, _function, "Meta")


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        out: Tensor
        out, logsumexp = torch.ops.hwsim_trace.attention(q, k, v, mask, causal)
        ctx.save_for_backward(q, k, v, out, logsumexp, mask)
        ctx.causal = causal
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        grads = torch.ops.hwsim_trace.attention_backward(
            *grads, *ctx.saved_tensors, ctx.causal, ctx.needs_input_grad[3]
        )
        return *grads, None


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, cols: int) -> Tensor:
        out: Tensor
        out, scale = torch.ops.hwsim_trace.rms_norm(x, weight, cols)
        ctx.save_for_backward(x, weight, scale)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return *torch.ops.hwsim_trace.rms_norm_backward(*grads, *ctx.saved_tensors), None


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Stands in for aten::scaled_dot_product_attention."""
    result: Tensor = _Attention.apply(query, key, value, attn_mask, is_causal)  # type: ignore[no-untyped-call]
    return result


def rms_norm(
    input: Tensor, normalized_shape: list[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Stands in for aten::rms_norm."""
    cols = 1
    for size in normalized_shape:
        cols = cols * size
    result: Tensor = _RmsNorm.apply(input, weight, cols)  # type: ignore[no-untyped-call]
    return result


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """Stands in for aten::dropout: the fused kernel that accelerators use."""
    return torch.native_dropout(input, p, True)[0] if train and p > 0 else input


def grouped_mm(
    a: Tensor, b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    """The shape of aten::_grouped_mm in every format: torch's own meta kernel takes bfloat16 only."""
    if a.dim() == 2 and b.dim() == 2 and offs is not None:
        return a.new_empty(offs.shape[0], a.shape[0], b.shape[1], dtype=out_dtype)
    if a.dim() == 3 and b.dim() == 2:
        return a.new_empty(a.shape[1], b.shape[1], dtype=out_dtype)
    return a.new_empty(*a.shape[:-1], b.shape[-1], dtype=out_dtype)


def _ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: object,
    target_lengths: object,
    blank: int = 0,
    zero_infinity: bool = False,
) -> tuple[Tensor, Tensor]:
    """One loss for each sequence, and the forward variables of its longest possible target."""
    tokens, batch = log_probs.shape[:2]
    return log_probs.new_empty(batch), log_probs.new_empty(batch, tokens, 2 * targets.shape[-1] + 1)


def _like_second(grad: Tensor, like: Tensor, *rest: object) -> Tensor:
    return torch.empty_like(like)


# Ops without a meta kernel, or with one that refuses what the real one takes, and what gives their result instead.
STAND_INS: dict[str, Callable[..., Any]] = {
    "aten::_grouped_mm": grouped_mm,
    "aten::_ctc_loss": _ctc_loss,
    "aten::_ctc_loss_backward": _like_second,
    "aten::multi_margin_loss_backward": _like_second,
    "aten::multilabel_margin_loss_backward": _like_second,
}

# What runs in place of these functions of torch.
WHOLE: dict[str, Callable[..., Any]] = {
    "aten::scaled_dot_product_attention": attention,
    "aten::rms_norm": rms_norm,
    "aten::dropout": dropout,
}


@contextmanager
def kept_whole() -> Iterator[None]:
    """While active, the functions of `WHOLE` on meta tensors call their opaque ops."""
    overrides: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call]
    try:
        for name, function in WHOLE.items():
            overrides.impl(name.removeprefix("aten::"), function, "AutogradMeta")
        yield
    finally:
        overrides._destroy()
