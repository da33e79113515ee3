"""One simulated run: what of the drive is simulated, how it is prepared, what came out."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from hwsim.devices.storage.analytic import WINDOW, usable
from hwsim.devices.storage.build import Span, build
from hwsim.devices.storage.drive import Drive
from hwsim.devices.storage.ftl import close_rows, fill
from hwsim.devices.storage.load import Load, Precondition
from hwsim.devices.storage.progress import Steps, Tell, silent, waiting
from hwsim.devices.storage.run import run
from hwsim.devices.storage.state import SECTOR, TICKS, Fault, Ints, K, M, N, words
from hwsim.devices.storage.things import Ch, Log, Op, Pl, Server, Sv
from hwsim.devices.storage.trace import Trace
from hwsim.errors import CheckFailed, InputError, Problem

MOST_SLOTS = 2**26
"""Physical mapping units of a drive that is simulated with all its blocks; a fill gets by with `FILLED_SLOTS`."""
FILLED_SLOTS = 2**21
LEAST_BLOCKS, LEAST_BLOCK_SLOTS = 256, 256
"""Of a group, and of a block: with smaller ones collection finds victims that larger drives do not have."""
STEP_REQUESTS, STEP_UNITS = 20_000, 2**19
"""Requests, and mapping units of a fill, between two words on how far a run is."""
STEADY_PARTS, MOST_PASSES, SETTLED = 4, 4, 0.03
"""A drive is overwritten at random, part by part, until amplification changes less than that from part to part."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run. ``state`` holds everything, ``steady`` the counts within the window; times are seconds.

    ``wrapped`` requests of a trace reached beyond what is simulated of the drive.
    """

    drive: Drive
    state: Ints
    span: Span
    scale: float
    seconds: float
    steady: Ints
    window: tuple[float, float]
    wrapped: int = 0

    @property
    def log(self) -> Ints:
        """A row for each request in the order of completion; see `Log`."""
        count = int(self.state[M.DONE])
        return self.state[self.state[K.LOG_AT] :][: count * Log.SIZE].reshape(count, Log.SIZE)

    def count(self, what: N) -> int:
        """How often something happened during the run."""
        return int(self.state[what])

    def busy(self, server: int) -> float:
        """Share of the run that a server worked."""
        this = self.state[K.SERVERS_AT] + server * Sv.SIZE
        return float(self._worked(self.state[this + Sv.TICKS], self.state[this + Sv.FREE_AT])) / TICKS / self.seconds

    def _worked(self, charged: Ints, ends: Ints) -> Ints:
        """Ticks that were charged when work began, less those after the end of the run."""
        worked: Ints = charged - np.maximum(0, ends - self.state[M.NOW])
        return worked

    def utilisation(self) -> dict[str, float]:
        """Share of the run that each resource worked: channels and planes on average and at most."""
        state, ticks = self.state, self.seconds * TICKS
        ways = state[state[K.CHANNELS_AT] :][: int(state[K.CHANNELS]) * Ch.SIZE].reshape(-1, Ch.SIZE)
        channels = self._worked(ways[:, Ch.TICKS], ways[:, Ch.ENDS])
        planes = self.drive.groups * self.drive.width
        arrays = state[state[K.PLANES_AT] :][: planes * Pl.SIZE].reshape(-1, Pl.SIZE)
        dies = self._worked(arrays[:, Pl.TICKS], arrays[:, Pl.DUE]).reshape(-1, self.drive.nand.planes).max(axis=1)
        return {
            "channels": float(channels.mean() / ticks),
            "busiest_channel": float(channels.max() / ticks),
            "dies": float(dies.mean() / ticks),
            "busiest_die": float(dies.max() / ticks),
            "link_to_host": self.busy(Server.UP),
            "link_to_drive": self.busy(Server.DOWN),
            "dram": self.busy(Server.DRAM),
            "firmware": sum(self.busy(Server.CORE + core) for core in range(self.drive.nvme.cores))
            / self.drive.nvme.cores,
        }


def simulate(drive: Drive, load: Load, trace: Trace | None = None, tell: Tell = silent) -> Outcome:
    """Run ``load`` on ``drive``; with a ``trace``, its requests at its times, as many in flight as the load allows.

    ``tell`` hears of what takes long.
    """
    load.check()
    span, size, scale = spanned(drive, load)
    nvme = drive.nvme
    depth = min(min(load.iodepth, nvme.queue_depth) * load.numjobs, nvme.queue_depth * nvme.queue_pairs)
    asked = load.stream(size) if trace is None else trace.stream
    stream = asked if trace is None else folded(asked, span)
    wrapped = int((stream[:, 1:3] != asked[:, 1:3]).any(axis=1).sum())
    state = build(drive, stream, span, min(depth, len(stream)), traced=trace is not None, seed=load.seed)
    with waiting(tell, "compiling the simulator, once"):
        fill(words(state), 0, 0, False)
        run(words(state))
    prepare(drive, state, load.prepared(drive), size, tell)
    explain(drive, state)
    window = WINDOW if trace is None else (0.0, 1.0)
    first, last = (int(len(stream) * part) for part in window)
    steps = Steps(tell, "requests")
    marks = [_run_to(drive, state, stop, steps) for stop in (first, last, len(stream))]
    return Outcome(drive, state, span, scale, float(state[M.NOW]) / TICKS, marks[1] - marks[0], window, wrapped)


def _run_to(drive: Drive, state: Ints, stop: int, steps: Steps) -> Ints:
    """Run until so many requests are done; returns the counts so far. `CheckFailed` says why a run cannot go on."""
    while True:
        done = int(state[M.DONE])
        state[M.STOP] = min(stop, done + STEP_REQUESTS)
        run(words(state))
        explain(drive, state)
        steps.at(int(state[M.DONE]), int(state[M.STREAM]))
        if state[M.DONE] >= stop:
            break
    return state[N.READS : len(N) + N.READS].copy()


def folded(stream: Ints, span: Span) -> Ints:
    """A trace's requests put back into the drive where they reach beyond it: addresses wrap at its last sector."""
    found = stream.copy()
    whole = span.nbytes // SECTOR * SECTOR
    found[:, 2] = np.minimum(found[:, 2], whole)
    places = whole - found[:, 2] + SECTOR
    found[:, 1] %= places
    return found


def spanned(drive: Drive, load: Load) -> tuple[Span, int, float]:
    """What is simulated of ``drive``, how many bytes the load covers of that, and the part of its flash.

    Reads of data that lie in order need no table. A drive with more mapping units than fit in memory is simulated with
    smaller and fewer blocks, all else unchanged; one that is filled first with still smaller ones.
    """
    unit, nand = drive.ftl.mapping_unit, drive.nand
    capacity = int(drive.capacity) // unit * unit
    if load.size is not None and load.size > capacity:
        expected = f"at most {capacity} bytes, which drive '{drive.name}' holds"
        raise InputError(Problem(file="--size", got=str(load.size), expected=expected))
    size = load.size or capacity
    if load.bs > size:
        raise InputError(f"--bs {load.bs} is larger than what drive '{drive.name}' holds: {size} bytes")
    partial = load.bs % unit != 0
    whole = load.prepared(drive) in ("fill", "steady")
    if not (load.reads < 1 or whole or drive.mechanics.unwritten_reads):
        return Span(size, nand.blocks, nand.pages, False, partial), size, 1.0
    most = (FILLED_SLOTS if whole else MOST_SLOTS) // (drive.groups * drive.row // unit)
    rows = nand.pages // drive.row_pages
    # Collection keeps some blocks however few are simulated: the spare ones must be more than those.
    needed = ceil(2 * (drive.ftl.least_free + 3) / max(drive.ftl.over_provisioning, 1e-9))
    blocks = min(nand.blocks, max(LEAST_BLOCKS, needed, most // rows))
    rows = min(rows, max(ceil(LEAST_BLOCK_SLOTS * unit / drive.row), most // blocks))
    scale = blocks * rows * drive.row_pages / (nand.blocks * nand.pages)
    kept = usable(drive, blocks) / max(usable(drive, nand.blocks), 1e-9) if whole and blocks < nand.blocks else 1.0
    held = int(capacity * scale * kept) // unit * unit
    size = min(held, max(load.bs, int(size * scale * kept))) // load.bs * load.bs if whole else min(size, held)
    if size < load.bs:
        raise InputError(f"--bs {load.bs} is larger than what is simulated of drive '{drive.name}': {held} bytes")
    return Span(held if whole else size, blocks, rows * drive.row_pages, True, partial), size, scale


def prepare(drive: Drive, state: Ints, prepared: Precondition, size: int, tell: Tell = silent) -> None:
    """Put the drive into the state that the load finds, in no time, and begin to count."""
    if not state[K.MAPPED] or prepared == "none":
        return
    units = -(-size // int(state[K.SLOT_BYTES]))
    whole = int(state[K.LPNS])
    _fill(state, whole if prepared in ("fill", "steady") else units, False, Steps(tell, "mapping units filled"))
    if prepared == "steady" and not state[M.FAULT]:
        _overwrite(state, whole, drive.kept_free(int(state[K.BLOCKS])), Steps(tell, "mapping units overwritten"))
    if state[M.FAULT]:
        return
    close_rows(words(state))
    if state[K.PARTIAL]:
        state[state[K.SECTORS_AT] : state[K.L2P_AT]] = (1 << (state[K.SLOT_BYTES] // 512)) - 1
    state[N.READS : N.READS + len(N)] = 0


def _overwrite(state: Ints, whole: int, free: int, steps: Steps) -> None:
    """Overwrite at random until as much is collected for a part of the drive as for the one before.

    It ends with ``free`` blocks in each group.
    """
    part, before = -(-whole // STEADY_PARTS), -1
    start = int(state[K.GC_START])
    state[K.GC_START] = free
    for _ in range(STEADY_PARTS * MOST_PASSES):
        moved = int(state[N.GC_SLOTS])
        _fill(state, part, True, steps)
        moved = int(state[N.GC_SLOTS]) - moved
        if state[M.FAULT] or (moved and abs(moved - before) < SETTLED * (part + moved)):
            break
        before = moved
    state[K.GC_START] = start


def _fill(state: Ints, count: int, random: bool, steps: Steps) -> None:
    """Write so many mapping units in no time, until the drive has no room."""
    for first in range(0, count, STEP_UNITS):
        fill(words(state), first, min(STEP_UNITS, count - first), random)
        if state[M.FAULT]:
            return
        steps.at(first + STEP_UNITS, count)


def explain(drive: Drive, state: Ints) -> None:
    """Raise what a fault of the run means."""
    fault = Fault(int(state[M.FAULT]))
    done, total = int(state[M.DONE]), int(state[M.STREAM])
    after = f"after {done} of {total} requests" if done else "before the first request is done"
    stuck = fault in (Fault.FULL, Fault.STALLED)
    if stuck and state[N.RETIRED]:
        raise CheckFailed(
            f"drive '{drive.name}' is worn out {after}: {state[N.RETIRED]} blocks are retired, none is free"
        )
    if stuck:
        blocks, spare = int(state[K.BLOCKS]), drive.ftl.over_provisioning
        raise CheckFailed(
            f"drive '{drive.name}' is full {after}: writes wait for free blocks, and no block has anything to reclaim; "
            f"over-provisioning of {spare:.1%} leaves {spare * blocks:.0f} spare of a die's {blocks} simulated blocks, "
            f"and collection keeps {int(state[K.GC_STOP])} of them"
        )
    if fault == Fault.POOL:
        raise CheckFailed(f"drive '{drive.name}' has too many commands in flight {after}: choose a smaller --iodepth")


def latencies(log: Ints, op: Op) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds from arrival to submission, from there to completion, and both, of the requests of one kind."""
    rows = log[(log[:, Log.OP] & 255) == op]
    waited = (rows[:, Log.SENT] - rows[:, Log.ARRIVED]) / TICKS
    served = (rows[:, Log.DONE] - rows[:, Log.SENT]) / TICKS
    return waited, served, waited + served
