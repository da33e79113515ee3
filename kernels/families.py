"""What a suite of measurements is made of: families of ops, the shapes drawn for them, random operands.

A family pairs two functions. `specs(draw)` yields the fields of the interchange (section 7 of the design), sizes
log-uniform and within the device's limits. `build(device, **fields)` allocates random operands and returns a call
without arguments that runs the op once; its keyword arguments are exactly the interchange's fields. Only torch and
the standard library are imported here and in the suites, so that they run on a bare GPU host.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

import torch
from torch import Tensor

Fields = dict[str, int | str | bool | dict[str, int]]
Call = Callable[[], object]
T = TypeVar("T")

DTYPES = {
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "int8": torch.int8,
    "fp8": torch.float8_e4m3fn,
}


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest single call on a device: FLOPs, operand bytes, bytes over the host link; and its dtypes."""

    flops: float
    fp32_flops: float
    operand_bytes: float
    link_bytes: float
    matmul_dtypes: tuple[str, ...]

    def flops_of(self, dtype: str) -> float:
        """The most FLOPs of one call in this dtype."""
        return self.fp32_flops if dtype == "fp32" else self.flops


CUDA_LIMITS = Limits(4e12, 2e11, 4e9, 2.7e8, ("bf16", "bf16", "bf16", "fp16", "fp32", "int8", "fp8"))
CPU_LIMITS = Limits(2e9, 2e9, 1.3e8, 0.0, ("bf16", "fp32", "fp32", "int8"))


class Draw:
    """Seeded draws of shapes for one op on one kind of device."""

    def __init__(self, seed: str, device: torch.device) -> None:
        self._random = random.Random(seed)
        self.device = device
        self.limits = CUDA_LIMITS if device.type == "cuda" else CPU_LIMITS

    def size(self, low: int, high: float, multiple: int = 1, nice: float = 0.6) -> int:
        """A log-uniform integer of [low, high]; with probability `nice` rounded to three significant bits."""
        top = max(low, int(high))
        value = round(math.exp(self._random.uniform(math.log(low), math.log(top))))
        if self.chance(nice):
            step = 1 << max(0, value.bit_length() - 3)
            value = round(value / step) * step
        steps = min(max(round(value / multiple), math.ceil(low / multiple)), max(1, top // multiple))
        return steps * multiple

    def choice(self, options: Sequence[T]) -> T:
        """One of the options; repeating an option weights it."""
        return self._random.choice(options)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._random.random() < probability


class Cold(StrEnum):
    """How a cold run is launched: not measured, called by the host, or as the replay of a graph of one call."""

    NONE = "none"
    CALL = "call"
    REPLAY = "replay"


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds per call of repeated cold and warm runs."""

    cold: list[float]
    warm: list[float]


@dataclass(frozen=True, slots=True)
class Family:
    """One op: its stream of specs, its builder, and how a row of it is measured.

    `timed` replaces `build` where an op is run and timed in processes of its own. `per_graph` calls are captured
    into one CUDA graph for the warm time, unless the calls are `eager`: launched by the host. `energy_share` is the
    share of rows whose joules are measured, `weight` the rows per round of families, `repeats` the fewest timings
    behind a median. Each tuple of specs in `tuning` is run once, in a process of its own, before anything is timed.
    `unavailable` says why the op cannot be measured here.
    """

    specs: Callable[[Draw], Iterator[Fields]]
    build: Callable[..., Call] | None = None
    timed: Callable[..., Timings] | None = None
    weight: int = 1
    per_graph: int = 20
    cold: Cold = Cold.CALL
    eager: bool = False
    energy_share: float = 0.15
    repeats: int = 7
    tuning: tuple[tuple[Fields, ...], ...] = ()
    unavailable: str = ""


def endless(draw_one: Callable[[Draw], Fields]) -> Callable[[Draw], Iterator[Fields]]:
    """The unending stream of a function that draws one spec."""

    def stream(draw: Draw) -> Iterator[Fields]:
        while True:
            yield draw_one(draw)

    return stream


def width(dtype: str) -> int:
    """Bytes per element."""
    return DTYPES[dtype].itemsize


def noise(device: torch.device, *shape: int, dtype: str) -> Tensor:
    """Random operands: standard normal, or uniform over int8. Never zeros, which can run faster than data."""
    if dtype == "int8":
        return torch.randint(-128, 128, shape, dtype=torch.int8, device=device)
    if dtype == "fp8":
        return torch.randn(shape, dtype=torch.bfloat16, device=device).to(DTYPES[dtype])
    return torch.randn(shape, dtype=DTYPES[dtype], device=device)
