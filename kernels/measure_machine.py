"""The device under measurement: how a case is timed on it, and the header lines that describe it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from hwsim.kernels.energy import GpuMonitor, NvmlError, RaplCounter
from hwsim.kernels.families import Cold
from hwsim.kernels.measure_rows import Case, Row
from hwsim.kernels.timers import CudaTimer, HostTimer, Spread, Timer

IDLE_S = 1.0
PACKAGES = ("triton", "fla-core", "onnxruntime")
SETTINGS = """\
matmul: x @ w.T with w stored as n rows of k; fp32 without TF32; int8 is torch._int_mm into int32; \
fp8 (e4m3) is torch._scaled_mm with fast accumulation into bf16
attention: scaled_dot_product_attention, torch's own choice of backend, enable_gqa for grouped heads
conv2d: cuDNN without autotuning, no TF32; gather_rows: index_select of 4-byte words by int64 ids
chunk_*, recurrent_*: kernels of flash-linear-attention, ssd is its simple_gla; bf16 operands and gates, fp32 state; \
chunks start from an empty state and give the last one; Triton tuned over at most 8 configurations of each kernel
collectives: torch.distributed with NCCL, one process per device, `bytes` of bf16 into each; the slowest rank counts
model: the network of hwsim's zoo of that name, random weights; one prefill or one decode step (logits of the last \
position) after `prompt` tokens, one forward of a batch of images (evaluation mode, channels_last for convolutions), \
or one training step: forward, backward from a given gradient of all logits, AdamW (fused) on fp32 masters, whose \
gradients are cast from and whose values are cast to the weights; recurrences by flash-linear-attention's kernels
mode: eager = launched by the host; graph = replayed from a CUDA graph; compile = torch.compile, replayed from a CUDA \
graph; onnxruntime = exported by torch.onnx, on its CPU provider
operands: random normal, uniform for int8 and copies; outputs allocated by torch's caching allocator"""
CUDA_METHOD = """\
cold: a buffer of six times the L2 is written, then one launch is timed event to event; median of `repeats`; \
for chunk_* and recurrent_* the launch is of a graph of one call, for collectives the ranks meet before it
warm: 20 calls in a CUDA graph (10 for chunk_*, 1 for op model; mode eager and copy_peer: launched by the host), \
replayed back to back, event-timed in regions of at least 0.5 ms, per call; median of `repeats` regions
joules_warm: mean power (NVML energy counter, refresh to refresh, >= 0.6 s of runs) times seconds per call of \
those runs, which a card at its power limit stretches beyond the shorter warm regions"""
HOST_METHOD = """\
cold: a buffer of four times the last-level cache is rewritten, then one call is timed; median of `repeats`
warm: up to 20 repeated calls per timed region, per call; median of `repeats` regions
joules_warm: advance of the RAPL counters of all packages over >= 0.6 s of calls; empty where they cannot be read"""


class Machine:
    """The device under measurement: its timer, and its energy counter where it has one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.timer: Timer
        self.monitor: GpuMonitor | None = None
        self.counter: GpuMonitor | RaplCounter | None = None
        try:
            if device.type == "cuda":
                self.name = torch.cuda.get_device_name(device)
                self.timer = CudaTimer(device)
                self.counter = self.monitor = GpuMonitor(str(torch.cuda.get_device_properties(device).uuid))
            else:
                self.name = f"{_cpu_name()}, {torch.get_num_threads()} threads"
                self.timer = HostTimer()
                self.counter = RaplCounter()
        except (NvmlError, OSError) as error:
            print(f"no energy readings: {error}", file=sys.stderr)

    def measure(self, case: Case) -> Row:
        """Time one case; raises whatever the op raises."""
        family = case.family
        if family.timed is not None:
            timings = family.timed(**case.fields)
            return Row(case, Spread.of(timings.cold), Spread.of(timings.warm), None, len(timings.warm))
        if family.build is None:
            raise ValueError(f"{case.op}: a family builds its call or times it")
        with torch.inference_mode(not case.with_gradients):
            call = family.build(self.device, **case.fields)
            loop = self.timer.loop(call, family.per_graph, case.eager)
            repeats = loop.repeats(self.timer.budget_s, family.repeats)
            cold = None
            if family.cold is not Cold.NONE:
                single = self.timer.loop(call, 1, eager=False).run if family.cold is Cold.REPLAY else call
                cold = Spread.of(self.timer.cold(single, repeats))
            warm = Spread.of(self.timer.warm(loop, repeats))
            joules = None
            if case.with_energy and self.counter is not None:
                joules = self.timer.joules(loop, self.counter.joules)
        return Row(case, cold, warm, joules, repeats)

    def describe(self) -> Iterator[str]:
        """Header lines: host, versions, state of the card, method."""
        yield f"host: {platform.system()} {platform.machine()}, {_cpu_name()}, {os.cpu_count()} cores"
        yield f"versions: python {platform.python_version()}, torch {torch.__version__}, {_versions()}"
        if self.monitor is not None:
            before = self.monitor.joules()
            time.sleep(IDLE_S)
            idle_w = (self.monitor.joules() - before) / IDLE_S
            state = self.monitor.state()
            yield f"driver: {state.driver}"
            yield f"devices: {torch.cuda.device_count()} visible"
            yield f"state at start: {state}; idle with a context {idle_w:.1f} W"
        yield from (CUDA_METHOD if self.device.type == "cuda" else HOST_METHOD).splitlines()
        yield from SETTINGS.splitlines()


def prepare_torch(device: torch.device, seed: int) -> None:
    """Seed torch and switch its shortcuts off; ValueError where there is no such device."""
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device; --device cpu measures this host")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def _versions() -> str:
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    found = [f"cuda {torch.version.cuda}", f"cudnn {cudnn}"]
    if torch.distributed.is_available() and torch.cuda.is_available():
        found.append("nccl " + ".".join(map(str, torch.cuda.nccl.version())))  # type: ignore[no-untyped-call]
    return ", ".join(found + [f"{name} {_version(name)}" for name in PACKAGES])


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"
