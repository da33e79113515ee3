"""Every recurrence with a matrix state as one op, `hwsim::recurrence`, whose `rule` names the update.

q, k [B, T, G, K] (G divides H: heads share queries and keys in groups); v and out [B, T, H, V]; state
[B, H, K, V] in float32. The gates of a rule, in order, with B, T, H in front:
    linear: none                        S = S + k vᵀ
    gla: log decay [K]                  S = Diag(α) S + k vᵀ
    ssd: log decay                      S = α S + k vᵀ, without the scale; the caller gives v = Δ x
    delta_rule: β                       S = (I − β k kᵀ) S + β k vᵀ
    gated_delta_rule: log decay, β      S = (I − β k kᵀ) α S + β k vᵀ
    kda: log decay [K], β               S = (I − β k kᵀ) Diag(α) S + β k vᵀ
    gdn2: log decay [K], b [K], w [V]   S = (I − k (b⊙k)ᵀ) Diag(α) S + k (w⊙v)ᵀ
and out = K^-0.5 Sᵀ q after the update. For `chunk` > 0 and T > 1 the op runs in chunk form, else token by token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from hwsim.kernels.gated_delta import (
    chunk_gated_delta,
    recurrent_gated_delta,
    reverse_gated_delta,
)
from hwsim.kernels.gla import chunk_gla, recurrent_gla
from hwsim.kernels.ssd import chunk_ssd

RULES: dict[str, tuple[str, ...]] = {
    "linear": (),
    "gla": ("g",),
    "ssd": ("g",),
    "delta_rule": ("bw",),
    "gated_delta_rule": ("g", "bw"),
    "kda": ("g", "bw"),
    "gdn2": ("g", "b", "w"),
}
"""For each rule, which of the general gates (decay g, erase b, write w) each of its gates feeds."""


@torch.library.custom_op("hwsim::recurrence", mutates_args=())
def recurrence(
    q: Tensor, k: Tensor, v: Tensor, gates: Sequence[Tensor], state: Tensor | None, rule: str, chunk: int
) -> tuple[Tensor, Tensor]:
    """(out, last state) of `rule`, from `state` or from zeros; see the module for the rules and shapes."""
    queries, keys, values = _head_first(q, k, v, rule)
    first = _first_state(queries, values, state)
    general = _general_gates(rule, gates, v)
    step = chunk if chunk > 0 and q.shape[1] > 1 else 0
    if "b" in general:
        everything = (general["g"], general["b"], general["w"])
        delta = (queries, keys, values, everything, first)
        out, last = chunk_gated_delta(*delta, step) if step else recurrent_gated_delta(*delta)
    else:
        decayed = (queries, keys, values, general["g"], first)
        chunked = chunk_ssd if rule == "ssd" else chunk_gla
        out, last = chunked(*decayed, step) if step else recurrent_gla(*decayed)
    return out.transpose(1, 2).to(v.dtype).contiguous(), last.clone()


@recurrence.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, gates: Sequence[Tensor], state: Tensor | None, rule: str, chunk: int
) -> tuple[Tensor, Tensor]:
    last = v.new_empty(v.shape[0], v.shape[2], k.shape[3], v.shape[3], dtype=torch.float32)
    return v.new_empty(v.shape), last


@torch.library.custom_op("hwsim::recurrence_backward", mutates_args=())
def recurrence_backward(
    grad_out: Tensor,
    grad_state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Sequence[Tensor],
    state: Tensor | None,
    rule: str,
    chunk: int,
) -> list[Tensor]:
    """Gradients of q, k, v, each gate and the first state, in this order, from those of the two outputs.

    Token by token backwards over the states of the general rule, computed again.
    """
    queries, keys, values = _head_first(q, k, v, rule)
    general = _general_gates(rule, gates, v)
    g, b, w = general["g"], general.get("b", torch.zeros_like(values[..., :1])), general.get("w")
    gradients = reverse_gated_delta(
        (queries, keys, values),
        (g, b, torch.ones_like(values[..., :1]) if w is None else w),
        _first_state(queries, values, state),
        (grad_out.float().transpose(1, 2), grad_state.float()),
    )
    gradients["q"] = gradients["q"] * _scale(rule, q)
    result = [_ungroup(gradients[name], x).to(x.dtype) for name, x in (("q", q), ("k", k), ("v", v))]
    for gate, roles in zip(gates, RULES[rule], strict=True):
        full = gate[..., None] if gate.dim() == 3 else gate
        parts = [gradients[role].transpose(1, 2).sum_to_size(full.shape) for role in roles]
        result.append(torch.stack(parts).sum(0).reshape(gate.shape).to(gate.dtype))
    return [*result, gradients["state"]]


@recurrence_backward.register_fake
def _(
    grad_out: Tensor,
    grad_state: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gates: Sequence[Tensor],
    state: Tensor | None,
    rule: str,
    chunk: int,
) -> list[Tensor]:
    return [torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v, *gates, grad_state)]


def _scale(rule: str, q: Tensor) -> float:
    return 1.0 if rule == "ssd" else float(q.shape[-1]) ** -0.5


def _head_first(q: Tensor, k: Tensor, v: Tensor, rule: str) -> tuple[Tensor, Tensor, Tensor]:
    """q (scaled), k and v in float32 as [B, H, T, *], with q and k repeated over the heads of their group."""
    repeats = v.shape[2] // k.shape[2]
    queries, keys = (x.float().repeat_interleave(repeats, dim=2).transpose(1, 2) for x in (q, k))
    return queries * _scale(rule, q), keys, v.float().transpose(1, 2)


def _ungroup(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of x [B, T, G, *] from that of its repetition [B, H, T, *]."""
    batch, tokens, groups, size = x.shape
    return grad.transpose(1, 2).reshape(batch, tokens, groups, -1, size).sum(3)


def _first_state(q: Tensor, v: Tensor, state: Tensor | None) -> Tensor:
    if state is not None:
        return state.float()
    return v.new_zeros(*v.shape[:2], q.shape[-1], v.shape[-1])


def _general_gates(rule: str, gates: Sequence[Tensor], v: Tensor) -> dict[str, Tensor]:
    """The gates of `rule` by general name, float32 [B, H, T, 1 or K or V]; a rule without decay has g = 0."""
    if rule not in RULES:
        raise ValueError(f"rule {rule!r}: expected one of {', '.join(RULES)}")
    general = {"g": torch.zeros_like(v[..., :1], dtype=torch.float32).transpose(1, 2)}
    for gate, roles in zip(gates, RULES[rule], strict=True):
        full = (gate[..., None] if gate.dim() == 3 else gate).float().transpose(1, 2)
        general |= dict.fromkeys(roles, full)
    return general


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    q, k, v, gates, state, rule, chunk = inputs
    ctx.save_for_backward(q, k, v, state, *gates)
    ctx.options = (rule, chunk)


def _backward(ctx: Any, grad_out: Tensor, grad_state: Tensor) -> tuple[Any, ...]:
    q, k, v, state, *gates = ctx.saved_tensors
    gradients = recurrence_backward(grad_out, grad_state, q, k, v, gates, state, *ctx.options)
    dq, dk, dv, *gate_grads, first_grad = gradients
    return dq, dk, dv, gate_grads, None if state is None else first_grad, None, None


recurrence.register_autograd(_backward, setup_context=_save)
