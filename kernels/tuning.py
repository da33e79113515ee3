"""Triton's tuning of a suite's kernels ahead of the measurements, many processes at once.

Every tuned kernel compiles dozens of configurations one after the other, minutes for one shape of one op. Here the
specs of a family's `tuning` are run once each in processes of their own, which leave their choices in Triton's cache
on disk. They compile side by side but take turns on the device when they time a configuration. Of each kernel at
most `MOST_CONFIGS` configurations are tried, those nearest to four warps and three stages.
"""

from __future__ import annotations

import fcntl
import math
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hwsim.kernels.families import Family, Fields

MOST_CONFIGS = 8
BENCH_WARM_UP_MS, BENCH_REPEAT_MS = 4, 20


@dataclass(frozen=True, slots=True)
class Job:
    """Specs of one op that a process runs one after the other; `build` is the family's."""

    op: str
    build: Callable[..., Callable[[], object]]
    specs: tuple[Fields, ...]


def tune(families: Mapping[str, Family], device: torch.device, deadline: float) -> None:
    """Run what the families want tuned, until `deadline` (time.monotonic) at the latest."""
    jobs = [
        Job(op, family.build, specs)
        for op, family in families.items()
        for specs in family.tuning
        if family.build is not None and not family.unavailable
    ]
    if not jobs:
        return
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        workers = [context.Process(target=run_job, args=(job, str(device), f"{folder}/turn")) for job in jobs]
        _run_all(workers, os.cpu_count() or 1, deadline)
    late = sum(worker.exitcode != 0 for worker in workers)
    print(f"tuned {len(jobs)} shapes in {time.monotonic() - begin:.0f} s, {late} not finished", file=sys.stderr)
    limit_tuning()


def _run_all(workers: Sequence[Any], at_once: int, deadline: float) -> None:
    """Start the processes, `at_once` at a time, and end those that are still running at the deadline."""
    waiting = list(workers)
    running: list[Any] = []
    while (waiting or running) and time.monotonic() < deadline:
        running = [worker for worker in running if worker.is_alive()]
        while waiting and len(running) < at_once:
            running.append(waiting.pop(0))
            running[-1].start()
        time.sleep(0.1)
    for worker in running:
        worker.terminate()
        worker.join()


def run_job(job: Job, device: str, turn: str) -> None:
    """Run a job's specs once each; `turn` is the file whose lock gives the turn on the device."""
    limit_tuning(Path(turn))
    torch.set_num_threads(1)
    for fields in job.specs:
        grad = fields.get("pass_") == "fwd+bwd"
        try:
            with torch.inference_mode(not grad):
                job.build(torch.device(device), **fields)()
        except Exception as error:  # the measurement will say so again; other specs may run
            print(f"tuning {job.op} {fields}: {type(error).__name__}: {error}", file=sys.stderr)
    torch.cuda.synchronize()


def limit_tuning(turn: Path | None = None) -> None:
    """Make this process's tuning short: few configurations, few timings, each in its turn."""
    from triton.runtime.autotuner import Autotuner
    from triton.testing import do_bench

    every = Autotuner.prune_configs
    if getattr(every, "limited", False):
        return

    def prune(self: Any, kwargs: dict[str, Any]) -> list[Any]:
        return central(every(self, kwargs))

    def bench(kernel_call: Callable[[], object], quantiles: Sequence[float]) -> Any:
        kernel_call()  # compiles
        with _turn(turn):
            return do_bench(kernel_call, warmup=BENCH_WARM_UP_MS, rep=BENCH_REPEAT_MS, quantiles=quantiles)

    prune.limited = True  # type: ignore[attr-defined]
    Autotuner.prune_configs = prune
    Autotuner.do_bench = property(lambda self: bench)


def central(configs: Sequence[Any]) -> list[Any]:
    """The configurations nearest to four warps and three stages, in their order."""

    def distance(config: Any) -> float:
        return abs(math.log2(config.num_warps / 4)) + float(abs(config.num_stages - 3))

    kept = sorted(range(len(configs)), key=lambda index: (distance(configs[index]), index))[:MOST_CONFIGS]
    return [configs[index] for index in sorted(kept)]


@contextmanager
def _turn(path: Path | None) -> Iterator[None]:
    if path is None:
        yield
        return
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
