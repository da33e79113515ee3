"""Where the cases of a study are simulated: in this process, in worker processes, or on a dask cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar, cast

from hwsim.errors import InputError
from hwsim.study.files import Journal
from hwsim.study.solve import Batch, solve_into, solve_some
from hwsim.study.tables import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from distributed import Client

T = TypeVar("T")
Report: TypeAlias = Callable[[int, int], None]  # cases done, and how many of these failed
PARENT_POLL_S = 0.5
CONNECT_S = 10
DIED = "the process that simulated this case died; most likely the machine ran out of memory"


def run_here(batches: Iterable[Batch], folder: Path, report: Report) -> None:
    """One case after the other in this process."""
    journal = _journal(folder)
    for batch in batches:
        while batch.cases:
            done, failed = solve_into(batch, journal)
            report(done, failed)
            batch = batch.after(done)


def run_processes(batches: Sequence[Batch], folder: Path, report: Report, jobs: int) -> None:
    """In ``jobs`` worker processes, each with a journal of its own."""
    lost = _drain(batches, folder, report, jobs)
    for batch in lost:  # a worker died: its cases go one by one, so that only the one at fault is given up
        for index in range(len(batch.cases)):
            alone = Batch(batch.cases[index : index + 1], batch.models, batch.hardware)
            if _drain([alone], folder, report, 1):
                writer = Journal(_journal(folder))
                writer.append(Outcome(alone.cases[0].key, DIED).record())
                writer.close()
                report(1, 1)


def connect(address: str) -> Client:
    """The dask scheduler at ``address``; `InputError` where dask is missing or nobody answers."""
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a cluster needs dask: pip install 'hwsim[dask]'") from None
    try:
        return Client(address, timeout=CONNECT_S)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"no dask scheduler answers at '{address}': {error}") from None


def run_cluster(batches: Iterable[Batch], folder: Path, report: Report, client: Client) -> None:
    """On a dask cluster; outcomes come back and are journalled here."""
    writer = Journal(_journal(folder))
    with client:
        executor = cast("Executor", client.get_executor())
        waiting = {executor.submit(_outcomes, batch): batch for batch in batches}
        for future, batch in _as_done(waiting):
            outcomes = future.result()
            for outcome in outcomes:
                writer.append(outcome.record())
            report(len(outcomes), sum(bool(outcome.error) for outcome in outcomes))
            rest = batch.after(len(outcomes))
            if rest.cases:
                waiting[executor.submit(_outcomes, rest)] = rest
    writer.close()


def _drain(batches: Sequence[Batch], folder: Path, report: Report, jobs: int) -> list[Batch]:
    """Simulate all batches; returns what is left of those that were lost with a worker that died."""
    lost: list[Batch] = []
    with _pool(jobs) as pool:
        waiting: dict[Future[tuple[int, int]], Batch] = {}
        for batch in batches:
            waiting[pool.submit(_work, batch, folder)] = batch
        for future, batch in _as_done(waiting):
            try:
                done, failed = future.result()
                report(done, failed)
                rest = batch.after(done)
                if rest.cases:
                    waiting[pool.submit(_work, rest, folder)] = rest
            except BrokenProcessPool:
                lost.append(batch)
    return lost


def _as_done(waiting: dict[Future[T], Batch]) -> Iterator[tuple[Future[T], Batch]]:
    """Futures as they end, also those that are added meanwhile."""
    while waiting:
        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
            yield future, waiting.pop(future)


@contextmanager
def _pool(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Worker processes; an interrupt ends them at once, as their journals hold all that is finished."""
    before = set(multiprocessing.active_children())
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (os.getpid(),))
    try:
        yield pool
    except BaseException:
        for worker in set(multiprocessing.active_children()) - before:
            worker.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def _start_worker(parent: int) -> None:
    """Leave the interrupt to the parent, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()


def _follow(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_POLL_S)
    os._exit(1)


def _outcomes(batch: Batch) -> list[Outcome]:
    return list(solve_some(batch))


def _work(batch: Batch, folder: Path) -> tuple[int, int]:
    return solve_into(batch, _journal(folder))


def _journal(folder: Path) -> Path:
    """Every process writes a journal of its own."""
    return folder / f"journal-{os.getpid()}.jsonl"
