"""State-space duality of Mamba-2: one decay per head and token, S_t = α_t S_{t-1} + k_t v_tᵀ, o_t = S_tᵀ q_t.

Dao & Gu 2024 (arXiv 2405.21060): q = C, k = B, v = Δ x and log α = Δ A. Shapes as in `hwsim.kernels.gla`,
with g [B, H, T, 1]; its recurrent form is `recurrent_gla` of that decay.
"""

from __future__ import annotations

import torch
from torch import Tensor


def chunk_ssd(q: Tensor, k: Tensor, v: Tensor, g: Tensor, state: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    """O = γ⊙(Q S) + (Q Kᵀ ⊙ L) V, S' = γ_C S + (γ_C/γ ⊙ K)ᵀ V per chunk; L_ij = γ_i/γ_j for j ≤ i, else 0."""
    outputs = []
    for start in range(0, q.shape[2], chunk):
        part = slice(start, start + chunk)
        queries, keys, values = q[:, :, part], k[:, :, part], v[:, :, part]
        log_decay = g[:, :, part].cumsum(2)
        mixing = (log_decay - log_decay.mT).clamp(max=0.0).exp().tril()
        outputs.append(log_decay.exp() * (queries @ state) + (queries @ keys.mT * mixing) @ values)
        last = log_decay[:, :, -1:]
        state = last.exp() * state + ((last - log_decay).exp() * keys).mT @ values
    return torch.cat(outputs, dim=2), state
