"""Gated linear attention: S_t = Diag(α_t) S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t (GLA, arXiv 2312.06635).

Here and in the other files of the recurrences the reference functions take float32 q, k, g [B, H, T, K],
v [B, H, T, V] and a state [B, H, K, V], with g = log α ≤ 0 also as [B, H, T, 1], and give the outputs
[B, H, T, V] and the last state. q comes scaled.
"""

from __future__ import annotations

import torch
from torch import Tensor


def recurrent_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One token after the other: decay, write, read."""
    outputs = []
    for t in range(q.shape[2]):
        state = g[:, :, t, :, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        outputs.append(read(q[:, :, t], state))
    return torch.stack(outputs, dim=2), state


def chunk_gla(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """`chunk` tokens at a time: matrix products inside a chunk, the state from chunk to chunk."""
    outputs = []
    for start in range(0, q.shape[2], chunk):
        part = slice(start, start + chunk)
        log_decay = g[:, :, part].cumsum(2)
        out, state = advance(q[:, :, part], k[:, :, part], v[:, :, part], log_decay, state)
        outputs.append(out)
    return torch.cat(outputs, dim=2), state


def advance(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk: O = (Γ⊙Q) S + tril((Γ⊙Q)(K/Γ)ᵀ) V, S' = Diag(Γ_C) S + (Γ_C/Γ ⊙ K)ᵀ V, Γ = exp(log_decay).

    `log_decay` is summed from the start of the chunk, [B, H, C, K] or [B, H, C, 1].
    """
    out = (log_decay.exp() * q) @ state + decayed_scores(q, k, log_decay).tril() @ v
    last = log_decay[:, :, -1:]
    return out, last.mT.exp() * state + ((last - log_decay).exp() * k).mT @ v


def decayed_scores(q: Tensor, k: Tensor, log_decay: Tensor) -> Tensor:
    """(Γ⊙Q)(K/Γ)ᵀ up to the diagonal, [B, H, C, C], from ratios Γ_i/Γ_j ≤ 1, so that nothing overflows."""
    ratio = (log_decay[:, :, :, None] - log_decay[:, :, None, :]).clamp(max=0.0).exp()
    return torch.einsum("bhid,bhjd,bhijd->bhij", q, k, ratio.expand(*ratio.shape[:-1], q.shape[-1]))


def read(q: Tensor, state: Tensor) -> Tensor:
    """Sᵀ q: [B, H, K] and [B, H, K, V] to [B, H, V]."""
    return (q[..., None] * state).sum(-2)
