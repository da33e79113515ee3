"""The selective scan of Mamba as one op: a diagonal state of N numbers per channel.

h_t = exp(Δ_t A)⊙h_{t-1} + Δ_t x_t B_tᵀ, y_t = h_t C_t + D⊙x_t (Gu & Dao 2023, arXiv 2312.00752).
x, Δ [B, T, E]; A [E, N] < 0; B, C [B, T, N]; D [E]; h [B, E, N] in float32; y [B, T, E].
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("hwsim::selective_scan", mutates_args=())
def selective_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(y, last state), from `state` or from zeros."""
    states = _scan(x, delta, A, B, state)
    y = torch.stack([h @ c[..., None] for h, c in zip(states[1:], C.float().unbind(1), strict=True)], dim=1)[..., 0]
    if D is not None:
        y = y + D.float() * x.float()
    return y.to(x.dtype), states[-1].clone()


@selective_scan.register_fake
def _(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0], *A.shape, dtype=torch.float32)


@torch.library.custom_op("hwsim::selective_scan_backward", mutates_args=())
def selective_scan_backward(
    grad_out: Tensor,
    grad_state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    state: Tensor | None,
) -> list[Tensor]:
    """Gradients of x, Δ, A, B, C, D and the first state, in this order, over the states computed again.

    dh += dy Cᵀ; dC = hᵀ dy; da = dh⊙h_{t-1}⊙exp(ΔA); dΔ = Σ_N da⊙A + dh⊙B x; dA = Σ_t Δ da; dB = dhᵀ (Δ x);
    dx = Δ dh B + D dy; dh_{t-1} = exp(ΔA)⊙dh.
    """
    states = _scan(x, delta, A, B, state)
    rate, grad, values, steps = A.float(), grad_out.float(), x.float(), delta.float()
    total, carry, columns = torch.zeros_like(rate), grad_state.float(), []
    for t in reversed(range(x.shape[1])):
        step, write = steps[:, t, :, None], B.float()[:, t, None]
        decay = (step * rate).exp()
        carry = carry + grad[:, t, :, None] * C.float()[:, t, None]
        grad_exponent = carry * states[t] * decay
        total = total + (grad_exponent * step).sum(0)
        written = (carry * write).sum(-1)
        grad_delta = (grad_exponent * rate).sum(-1) + written * values[:, t]
        grad_write = (carry * step * values[:, t, :, None]).sum(1)
        grad_read = (states[t + 1] * grad[:, t, :, None]).sum(1)
        columns.append((written * steps[:, t], grad_delta, grad_write, grad_read))
        carry = decay * carry
    dx, d_delta, d_write, d_read = (torch.stack(column[::-1], dim=1) for column in zip(*columns, strict=True))
    d_skip = (grad * values).sum((0, 1))
    if D is not None:
        dx = dx + D.float() * grad
    inputs = (x, delta, A, B, C, x if D is None else D, grad_state)
    gradients = (dx, d_delta, total, d_write, d_read, d_skip, carry)
    return [gradient.to(like.dtype) for gradient, like in zip(gradients, inputs, strict=True)]


@selective_scan_backward.register_fake
def _(
    grad_out: Tensor,
    grad_state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    state: Tensor | None,
) -> list[Tensor]:
    skip = x.new_empty(x.shape[-1]) if D is None else D
    return [torch.empty_like(like) for like in (x, delta, A, B, C, skip, grad_state)]


def _scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, state: Tensor | None) -> list[Tensor]:
    """The first state and the state after each token, [B, E, N] each."""
    zeros = torch.zeros(x.shape[0], *A.shape, device=x.device)
    states = [zeros if state is None else state.float()]
    for t in range(x.shape[1]):
        step = delta.float()[:, t, :, None]
        write = step * x.float()[:, t, :, None] * B.float()[:, t, None]
        states.append((step * A.float()).exp() * states[-1] + write)
    return states


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_out: Tensor, grad_state: Tensor) -> tuple[Tensor | None, ...]:
    inputs = ctx.saved_tensors
    gradients = selective_scan_backward(grad_out, grad_state, *inputs)
    return tuple(None if x is None else gradient for x, gradient in zip(inputs, gradients, strict=True))


selective_scan.register_autograd(_backward, setup_context=_save)
