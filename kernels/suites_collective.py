"""The collective suite: NCCL between all GPUs of a host, a process per GPU, and copies from one GPU to the next.

`bytes` is the input of one rank: all_gather gives it times the ranks, reduce_scatter its share, the others as much.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from multiprocessing.connection import Connection
from typing import Any

import torch
import torch.distributed as dist

from hwsim.kernels.families import Call, Draw, Family, Fields, Timings, noise
from hwsim.kernels.timers import CudaTimer, Loop

OPS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
LEAST_BYTES, MOST_BYTES = 256, 2**30
REPLY_S = 60.0  # a rank that is silent for longer has hung
MEETING_ELEMENTS = 32
QUEUE_CYCLES = 1_000_000  # about half a millisecond
PER_GRAPH = 20
REPEATS_LEAST = 7


def collective_families(device: torch.device) -> dict[str, Family]:
    """The collectives and copy_peer on the GPUs of this host."""
    ranks = torch.cuda.device_count() if device.type == "cuda" else 0
    reason = "" if ranks > 1 else f"it needs two CUDA devices, this host has {ranks}"
    families = {
        op: Family(partial(collective_specs, ranks), timed=partial(timed_by_team, op), unavailable=reason) for op in OPS
    }
    families["copy_peer"] = Family(peer_specs, copy_peer, eager=True, energy_share=0.0, unavailable=reason)
    return families


def collective_specs(ranks: int, draw: Draw) -> Iterator[Fields]:
    """Log-uniform bytes that divide evenly among the ranks."""
    while True:
        yield {"bytes": draw.size(LEAST_BYTES, MOST_BYTES, 16 * ranks), "ranks": ranks}


def peer_specs(draw: Draw) -> Iterator[Fields]:
    """Log-uniform bytes."""
    while True:
        yield {"bytes": draw.size(LEAST_BYTES, MOST_BYTES, 16)}


def copy_peer(device: torch.device, bytes: int) -> Call:
    """A copy of random bytes into the memory of the next GPU."""
    source = torch.randint(256, (bytes,), dtype=torch.uint8, device=device)
    target = torch.empty(bytes, dtype=torch.uint8, device=torch.device("cuda", (source.device.index + 1)))
    return partial(target.copy_, source, non_blocking=True)


def collective(op: str, device: torch.device, bytes: int, ranks: int) -> Call:
    """The collective on one tensor of bf16 per rank, with its output allocated beforehand."""
    numel = bytes // 2
    source = noise(device, numel, dtype="bf16")
    if op == "all_reduce":
        return partial(dist.all_reduce, source)
    size = {"all_gather": numel * ranks, "reduce_scatter": numel // ranks, "all_to_all": numel}[op]
    target = torch.empty(size, dtype=source.dtype, device=device)
    functions: dict[str, Callable[..., object]] = {
        "all_gather": dist.all_gather_into_tensor,
        "reduce_scatter": dist.reduce_scatter_tensor,
        "all_to_all": dist.all_to_all_single,
    }
    return partial(functions[op], target, source)


class Team:
    """A process per GPU, joined in one NCCL group, that time collectives in step."""

    def __init__(self, ranks: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.TemporaryDirectory()
        self._pipes: list[Connection] = []
        self._workers = []
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            place = (rank, ranks, f"file://{self._folder.name}/meeting")
            self._workers.append(context.Process(target=serve, args=(theirs, place), daemon=True))
            self._workers[-1].start()
            self._pipes.append(ours)

    def time(self, op: str, fields: Fields) -> Timings:
        """The timings of the slowest rank, repeat by repeat; RuntimeError where a rank fails or hangs."""
        for pipe in self._pipes:
            pipe.send((op, fields))
        replies = [self._reply(pipe) for pipe in self._pipes]
        cold = [max(repeat) for repeat in zip(*(reply.cold for reply in replies), strict=True)]
        warm = [max(repeat) for repeat in zip(*(reply.warm for reply in replies), strict=True)]
        return Timings(cold, warm)

    def _reply(self, pipe: Connection) -> Timings:
        if not pipe.poll(REPLY_S):
            self.end()
            raise RuntimeError(f"no answer from a rank within {REPLY_S:.0f} s")
        try:
            reply: Timings | str = pipe.recv()
        except EOFError:
            reply = "a rank ended"
        if isinstance(reply, str):
            self.end()
            raise RuntimeError(reply)
        return reply

    def end(self) -> None:
        """End the processes; the next case starts a new team."""
        team.cache_clear()
        for worker in self._workers:
            worker.terminate()
            worker.join()


@cache
def team(ranks: int) -> Team:
    """The team of this process, started when it is first needed."""
    made = Team(ranks)
    atexit.register(made.end)
    return made


def timed_by_team(op: str, **fields: Any) -> Timings:
    """Cold and warm seconds of one collective."""
    return team(fields["ranks"]).time(op, fields)


def serve(pipe: Connection, place: tuple[int, int, str]) -> None:
    """The life of a rank: time what it is sent, and answer with timings or with what went wrong."""
    rank, ranks, meeting = place
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")  # multicast over NVLink may be switched off for good reason
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group("nccl", init_method=meeting, rank=rank, world_size=ranks, device_id=device)
    timer = CudaTimer(device)
    while True:
        try:
            op, fields = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(time_in_step(timer, device, op, fields))
        except Exception as error:
            pipe.send(f"rank {rank}: {type(error).__name__}: {error}")
            raise


def time_in_step(timer: CudaTimer, device: torch.device, op: str, fields: dict[str, int]) -> Timings:
    """Time one collective on this rank, in as many repeats as every rank makes."""
    call = collective(op, device, **fields)
    token = torch.zeros(MEETING_ELEMENTS, device=device)

    def meet() -> None:
        torch.cuda._sleep(QUEUE_CYCLES)  # type: ignore[no-untyped-call]  # time for the host to queue the collective behind the meeting
        dist.all_reduce(token)

    loop = same_on_all_ranks(timer.loop(call, PER_GRAPH, eager=False), device)
    repeats = loop.repeats(timer.budget_s, REPEATS_LEAST)
    cold = timer.cold(call, repeats, before=meet)
    meet()
    warm = timer.warm(loop, repeats)
    del loop
    timer.release()
    return Timings(cold, warm)


def same_on_all_ranks(loop: Loop, device: torch.device) -> Loop:
    """The loop with the duration of the slowest rank, so that all ranks repeat it equally often."""
    slowest = torch.tensor(loop.seconds, device=device, dtype=torch.float64)
    dist.all_reduce(slowest, dist.ReduceOp.MAX)
    return Loop(loop.run, loop.calls, float(slowest))
