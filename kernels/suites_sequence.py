"""The sequence suite: recurrences with a matrix state as chunk kernels and as single decode steps.

Operands are those of the interchange: q, k [B, T, H, d_k], v [B, T, H, d_v], the rule's gates, and for a decode
step the float32 state [B, H, d_k, d_v]. Chunk kernels start from an empty state and give the last one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

from hwsim.kernels.families import DTYPES, Call, Cold, Draw, Family, Fields, noise
from hwsim.kernels.fast_recurrence import DISTRIBUTION, GATES, PACKAGE, Kernel, load_kernel

BATCHES = (1, 2, 8, 32)
"""Few, because the kernels are tuned anew for each."""
SHAPES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "gla": ((4, 256, 256), (16, 128, 128), (32, 64, 64)),
    "ssd": ((64, 128, 64), (16, 128, 128), (32, 64, 64)),
    "delta_rule": ((2, 128, 128), (16, 128, 128), (32, 64, 64)),
    "gated_delta_rule": ((8, 128, 256), (16, 128, 128), (32, 64, 64)),
    "kda": ((32, 128, 128), (16, 128, 128), (8, 64, 64)),
    "gdn2": ((8, 128, 256), (16, 128, 128), (32, 64, 64)),
}
"""(heads, d_k, d_v) of each rule; few, for the same reason."""
PASSES = ("fwd", "fwd+bwd")
MOST_TOKENS = 32768
TUNING_TOKENS = 4096
OPERAND_BYTES = 1.5e9  # of all operands together, a tenth of what a backward pass holds


def sequence_families(device: torch.device) -> dict[str, Family]:
    """Every recurrence, chunked and as a decode step."""
    reason = unavailable(device)
    families = {}
    for rule in SHAPES:
        families[f"chunk_{rule}"] = Family(
            partial(chunk_specs, rule),
            partial(build_chunk, rule),
            per_graph=10,
            cold=Cold.REPLAY,
            tuning=tuple(tuning_specs(shape) for shape in SHAPES[rule]),
            unavailable=reason,
        )
    for rule in SHAPES:
        families[f"recurrent_{rule}"] = Family(
            partial(recurrent_specs, rule),
            partial(build_recurrent, rule),
            cold=Cold.REPLAY,
            unavailable=reason,
        )
    return families


def unavailable(device: torch.device) -> str:
    """Why the kernels cannot run here; empty where they can."""
    if device.type != "cuda":
        return "its Triton kernels need a CUDA device"
    return "" if find_spec(PACKAGE) else f"package {DISTRIBUTION} is not installed"


def chunk_specs(rule: str, draw: Draw) -> Iterator[Fields]:
    """Log-uniform batch x tokens up to what the operands may hold, forward and with backward alternately."""
    turn = 0
    while True:
        heads, d_k, d_v = draw.choice(SHAPES[rule])
        batch = draw.choice(BATCHES)
        per_token = batch * heads * 2 * (2 * d_k + 2 * d_v + gate_elements(rule, d_k, d_v))
        tokens = draw.size(64, min(MOST_TOKENS, OPERAND_BYTES / per_token), nice=0.75)
        yield fields_of(batch, tokens, (heads, d_k, d_v), PASSES[turn % 2])
        turn += 1


def recurrent_specs(rule: str, draw: Draw) -> Iterator[Fields]:
    """One token for up to 256 sequences, or as many as their states may take."""
    while True:
        heads, d_k, d_v = draw.choice(SHAPES[rule])
        batch = draw.size(1, min(256, OPERAND_BYTES / (8 * heads * d_k * d_v)))
        yield fields_of(batch, 1, (heads, d_k, d_v), "decode")


def tuning_specs(shape: tuple[int, int, int]) -> tuple[Fields, ...]:
    """What is run once for the tuning of a shape: both passes, and the forward of each further batch."""
    passes = [fields_of(1, TUNING_TOKENS, shape, pass_) for pass_ in PASSES]
    return (*passes, *(fields_of(batch, 128, shape, pass_) for batch in BATCHES[1:] for pass_ in PASSES))


def fields_of(batch: int, tokens: int, shape: tuple[int, int, int], pass_: str) -> Fields:
    """The fields of the interchange; all rows are bf16."""
    heads, d_k, d_v = shape
    sizes: Fields = {"batch": batch, "tokens": tokens, "heads": heads, "d_k": d_k, "d_v": d_v}
    return {**sizes, "dtype": "bf16", "pass_": pass_}


def gate_elements(rule: str, d_k: int, d_v: int) -> int:
    """Elements of all gates per token and head."""
    return sum({"1": 1, "k": d_k, "v": d_v}[size] for size in GATES[rule].values())


def operands(
    rule: str, device: torch.device, batch: int, tokens: int, heads: int, d_k: int, d_v: int, dtype: str
) -> list[Tensor]:
    """q, k of unit length, v, and the gates: log decays below 0, the others within (0, 1)."""
    draw = partial(noise, device, batch, tokens, heads, dtype=dtype)
    q, k = (F.normalize(draw(d_k), dim=-1) for _ in range(2))
    gates = []
    for name, size in GATES[rule].items():
        raw = draw({"1": 1, "k": d_k, "v": d_v}[size])
        value = F.logsigmoid(raw) / 16 if name == "g" else raw.sigmoid()
        gates.append(value.squeeze(-1) if size == "1" else value)
    return [q, k, draw(d_v), *gates]


def build_chunk(
    rule: str,
    device: torch.device,
    batch: int,
    tokens: int,
    heads: int,
    d_k: int,
    d_v: int,
    dtype: str,
    pass_: str,
) -> Call:
    """The chunk kernel, or it and the gradients of all its operands from random ones of the outputs."""
    kernel = load_kernel("chunk", rule)
    inputs = operands(rule, device, batch, tokens, heads, d_k, d_v, dtype)
    if pass_ == "fwd":
        return partial(kernel, *inputs, output_final_state=True)
    leaves = [operand.detach().requires_grad_() for operand in inputs]
    slope = noise(device, batch, tokens, heads, d_v, dtype=dtype)
    return partial(forward_backward, kernel, leaves, slope)


def forward_backward(kernel: Kernel, leaves: Sequence[Tensor], slope: Tensor) -> tuple[Tensor, ...]:
    """The gradients of the leaves from that of the outputs."""
    out, _ = kernel(*leaves, output_final_state=True)
    return torch.autograd.grad(out, leaves, slope)


def build_recurrent(
    rule: str,
    device: torch.device,
    batch: int,
    tokens: int,
    heads: int,
    d_k: int,
    d_v: int,
    dtype: str,
    pass_: str,
) -> Call:
    """One step from a random state; the new state is written elsewhere."""
    inputs = operands(rule, device, batch, tokens, heads, d_k, d_v, dtype)
    state = torch.randn(batch, heads, d_k, d_v, dtype=DTYPES["fp32"], device=device)
    kernel = load_kernel("recurrent", rule)
    return partial(kernel, *inputs, initial_state=state, output_final_state=True)
