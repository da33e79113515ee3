"""Softmax attention as one op where torch's cannot say it: a sliding window, queries after cached keys."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_attention(q: Tensor, k: Tensor, v: Tensor, window: int = 0, scale: float | None = None) -> Tensor:
    """o_t = softmax(scale q_t Kᵀ) V over the keys up to t, of those the last `window` if window > 0.

    q [B, Hq, T, D]; k [B, Hkv, S, D]; v [B, Hkv, S, E]; o [B, Hq, T, E]. The queries are the last T of the S
    positions; query head h reads key/value head h // (Hq / Hkv); scale defaults to D**-0.5.
    """
    if q.shape[2] == 1 and window == 0:
        return F.scaled_dot_product_attention(q, k, v, scale=scale, enable_gqa=True)
    if window == 0 and q.shape[2] == k.shape[2]:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=True)
    out: Tensor = attention(q, k, v, True, window, scale)
    return out


def sliding_window_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Causal attention to the last `window` keys, the token's own included; shapes as `causal_attention`."""
    out: Tensor = attention(q, k, v, True, window)
    return out


@torch.library.custom_op("hwsim::attention", mutates_args=())
def attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float | None = None) -> Tensor:
    """o = softmax(scale Q Kᵀ + mask) V; shapes as `causal_attention`, window 0 = unlimited.

    As from the fused kernels, o lies in memory as [B, T, Hq, E], so that joining the heads moves nothing.
    """
    mask = _mask(q, k, causal, window)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=True)
    return out.transpose(1, 2).contiguous().transpose(1, 2)


@attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float | None = None) -> Tensor:
    batch, heads, tokens, _ = q.shape
    return q.new_empty(batch, tokens, heads, v.shape[-1]).transpose(1, 2)


@torch.library.custom_op("hwsim::attention_backward", mutates_args=())
def attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k, v from `grad` [B, Hq, T, E], with the probabilities P computed again.

    dV = Pᵀ dO; dP = dO Vᵀ; dS = P ⊙ (dP − rowsum(dP ⊙ P)); dQ = scale dS K; dK = scale dSᵀ Q.
    """
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    batch, kv_heads = k.shape[:2]
    query, out_grad = (x.float().reshape(batch, kv_heads, -1, *x.shape[2:]) for x in (q, grad))
    key, value = k.float()[:, :, None], v.float()[:, :, None]
    scores = (query @ key.mT * factor).masked_fill(~_mask(q, k, causal, window), float("-inf"))
    weights = scores.softmax(-1)
    weights_grad = out_grad @ value.mT
    scores_grad = factor * weights * (weights_grad - (weights_grad * weights).sum(-1, keepdim=True))
    dq, dk, dv = scores_grad @ key, (scores_grad.mT @ query).sum(2), (weights.mT @ out_grad).sum(2)
    return dq.flatten(1, 2).to(q.dtype), dk.to(k.dtype), dv.to(v.dtype)


@attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int, scale: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _mask(q: Tensor, k: Tensor, causal: bool, window: int) -> Tensor:
    """Which of the S keys each of the last T positions may see: bool [T, S]."""
    queries, keys = q.shape[2], k.shape[2]
    last = torch.arange(keys - queries, keys, device=q.device)
    distance = last[:, None] - torch.arange(keys, device=q.device)
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        allowed &= distance >= 0
    if window > 0:
        allowed &= distance < window
    return allowed


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:3])
    ctx.options = inputs[3:]


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return *attention_backward(grad, *ctx.saved_tensors, *ctx.options), None, None, None


attention.register_autograd(_backward, setup_context=_save)
