"""The gated delta rules, in the general form of Gated DeltaNet-2 (arXiv 2605.22791).

S_t = (I − k_t (b_t⊙k_t)ᵀ) Diag(α_t) S_{t-1} + k_t (w_t⊙v_t)ᵀ, o_t = S_tᵀ q_t.
With b = w = β it is KDA, with a scalar α too Gated DeltaNet, with α = 1 DeltaNet. Shapes as in
`hwsim.kernels.gla`; erase b [B, H, T, K or 1], write w [B, H, T, V or 1].
"""

from __future__ import annotations

import torch
from torch import Tensor

from hwsim.kernels.gla import advance, decayed_scores, read


def recurrent_gated_delta(
    q: Tensor, k: Tensor, v: Tensor, gates: tuple[Tensor, Tensor, Tensor], state: Tensor
) -> tuple[Tensor, Tensor]:
    """One token after the other: decay, replace what is held under the key, read; `gates` is (g, b, w)."""
    g, b, w = gates
    erase, write = b * k, w * v
    outputs = []
    for t in range(q.shape[2]):
        state = g[:, :, t, :, None].exp() * state
        change = write[:, :, t] - read(erase[:, :, t], state)
        state = state + k[:, :, t, :, None] * change[:, :, None]
        outputs.append(read(q[:, :, t], state))
    return torch.stack(outputs, dim=2), state


def chunk_gated_delta(
    q: Tensor, k: Tensor, v: Tensor, gates: tuple[Tensor, Tensor, Tensor], state: Tensor, chunk: int
) -> tuple[Tensor, Tensor]:
    """`chunk` tokens at a time: the changes R = U − Y S, then the chunk of GLA with R as its values.

    [Y, U] = (I + tril((Γ⊙E)(K/Γ)ᵀ, −1))⁻¹ [Γ⊙E, w⊙V] with E = b⊙K; `gates` is (g, b, w).
    """
    g, b, w = gates
    erase, write = b * k, w * v
    outputs = []
    for start in range(0, q.shape[2], chunk):
        part = slice(start, start + chunk)
        log_decay = g[:, :, part].cumsum(2)
        system = decayed_scores(erase[:, :, part], k[:, :, part], log_decay).tril(-1)
        target = write[:, :, part] - (log_decay.exp() * erase[:, :, part]) @ state
        changes = torch.linalg.solve_triangular(system, target, upper=False, unitriangular=True)
        out, state = advance(q[:, :, part], k[:, :, part], changes, log_decay, state)
        outputs.append(out)
    return torch.cat(outputs, dim=2), state


def reverse_gated_delta(
    qkv: tuple[Tensor, Tensor, Tensor],
    gates: tuple[Tensor, Tensor, Tensor],
    state: Tensor,
    grads: tuple[Tensor, Tensor],
) -> dict[str, Tensor]:
    """Gradients of q, k, v, g, b, w and the first state, from those of the outputs and the last state.

    With D = Diag(α) S_{t-1}, e = b⊙k, r = w⊙v − Dᵀe: dS += q doᵀ; dq = S do; dk = dS r; dr = dSᵀ k;
    dD = dS − e drᵀ; de = −D dr; dS_{t-1} = α⊙dD; dg = rowsum(dD⊙D). Each as its input, gates in full size.
    """
    (q, k, v), (grad_out, grad_state) = qkv, grads
    g, b, w = (gate.expand(x.shape) for gate, x in zip(gates, (k, k, v), strict=True))
    states = _decayed_states(k, w * v, b * k, g, state)
    steps: list[tuple[Tensor, ...]] = []
    for t in reversed(range(q.shape[2])):
        key, erase, grad = k[:, :, t], (b * k)[:, :, t], grad_out[:, :, t]
        decayed = states[t]
        change = (w * v)[:, :, t] - read(erase, decayed)
        after = decayed + key[..., None] * change[:, :, None]
        grad_state = grad_state + q[:, :, t, :, None] * grad[:, :, None]
        grad_change = read(key, grad_state)
        grad_decayed = grad_state - erase[..., None] * grad_change[:, :, None]
        grad_erase = -read(grad_change, decayed.mT)
        grad_key = read(change, grad_state.mT) + b[:, :, t] * grad_erase
        grad_decay = (grad_decayed * decayed).sum(-1)
        erase_write = (key * grad_erase, v[:, :, t] * grad_change)
        steps.append((read(grad, after.mT), grad_key, w[:, :, t] * grad_change, grad_decay, *erase_write))
        grad_state = g[:, :, t, :, None].exp() * grad_decayed
    columns = [torch.stack(column[::-1], dim=2) for column in zip(*steps, strict=True)]
    return dict(zip(("q", "k", "v", "g", "b", "w"), columns, strict=True)) | {"state": grad_state}


def _decayed_states(k: Tensor, write: Tensor, erase: Tensor, g: Tensor, state: Tensor) -> list[Tensor]:
    """Diag(α_t) S_{t-1} for every token."""
    states = []
    for t in range(k.shape[2]):
        state = g[:, :, t, :, None].exp() * state
        states.append(state)
        change = write[:, :, t] - read(erase[:, :, t], state)
        state = state + k[:, :, t, :, None] * change[:, :, None]
    return states
