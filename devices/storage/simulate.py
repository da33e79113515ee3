"""One simulated run: what of the drive is simulated, how it is prepared, what came out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hwsim.devices.storage.build import Span, build
from hwsim.devices.storage.drive import Drive
from hwsim.devices.storage.ftl import close_rows, fill
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.run import run
from hwsim.devices.storage.state import TICKS, Ch, Fault, Ints, K, Log, M, N, Op, Pl, Server, Sv, words
from hwsim.errors import CheckFailed, InputError

MOST_SLOTS = 2**26
"""Physical mapping units of a drive that is simulated with all its blocks; a fill gets by with `FILLED_SLOTS`."""
FILLED_SLOTS = 2**23
LEAST_BLOCKS = 32
STEADY_PASSES = 3
"""How often the drive is overwritten at random until its write amplification is steady."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run. ``state`` holds everything; times are seconds."""

    drive: Drive
    state: Ints
    span: Span
    scale: float
    seconds: float

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
        return float(self.state[self.state[K.SERVERS_AT] + server * Sv.SIZE + Sv.TICKS]) / TICKS / self.seconds

    def utilisation(self) -> dict[str, float]:
        """Share of the run that each resource worked: channels and planes on average and at most."""
        state, ticks = self.state, self.seconds * TICKS
        channels = state[state[K.CHANNELS_AT] :][: int(state[K.CHANNELS]) * Ch.SIZE].reshape(-1, Ch.SIZE)[:, Ch.TICKS]
        planes = self.drive.groups * self.drive.width
        arrays = state[state[K.PLANES_AT] :][: planes * Pl.SIZE].reshape(-1, Pl.SIZE)[:, Pl.TICKS]
        dies = arrays.reshape(-1, self.drive.nand.planes).max(axis=1)
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


def simulate(drive: Drive, load: Load) -> Outcome:
    """Run ``load`` on ``drive``."""
    load.check()
    span, size, scale = spanned(drive, load)
    depth = min(load.iodepth, drive.nvme.queue_depth) * load.numjobs
    state = build(drive, load.stream(size), span, min(depth, load.count), seed=load.seed)
    prepare(state, load, size)
    return finish(drive, state, span, scale)


def finish(drive: Drive, state: Ints, span: Span, scale: float) -> Outcome:
    """Run a state to its end; `CheckFailed` says why it cannot."""
    run(words(state))
    explain(drive, state)
    return Outcome(drive, state, span, scale, float(state[M.NOW]) / TICKS)


def spanned(drive: Drive, load: Load) -> tuple[Span, int, float]:
    """What is simulated of ``drive``, how many bytes the load covers of that, and the part of its blocks.

    Reads of data that lie in order need no table. A drive with more mapping units than fit in memory is simulated with
    fewer blocks, all else unchanged; one that is filled first with still fewer.
    """
    unit = drive.ftl.mapping_unit
    capacity = int(drive.capacity) // unit * unit
    size = min(load.size or capacity, capacity)
    if load.bs > size:
        raise InputError(f"--bs {load.bs} is larger than what drive '{drive.name}' holds: {size} bytes")
    partial = load.bs % unit != 0
    mapped = load.reads < 1 or load.prepared in ("fill", "steady") or drive.mechanics.unwritten_reads
    if not mapped:
        return Span(size, drive.nand.blocks, False, partial), size, 1.0
    slots = drive.nand.capacity / unit
    most = FILLED_SLOTS if load.prepared in ("fill", "steady") else MOST_SLOTS
    blocks = drive.nand.blocks
    if slots > most:
        blocks = max(LEAST_BLOCKS, int(blocks * most / slots))
    scale = min(1.0, blocks / drive.nand.blocks)
    blocks = round(drive.nand.blocks * scale)
    held = int(capacity * scale) // unit * unit
    whole = load.prepared in ("fill", "steady")
    size = max(load.bs, int(size * scale) // load.bs * load.bs) if whole else min(size, held)
    return Span(held if whole else size, blocks, True, partial), size, scale


def prepare(state: Ints, load: Load, size: int) -> None:
    """Put the drive into the state that the load finds, in no time, and begin to count."""
    if not state[K.MAPPED] or load.prepared == "none":
        return
    units = -(-size // int(state[K.SLOT_BYTES]))
    fill(words(state), 0, int(state[K.LPNS]) if load.prepared in ("fill", "steady") else units, False)
    if load.prepared == "steady":
        fill(words(state), 0, STEADY_PASSES * int(state[K.LPNS]), True)
    close_rows(words(state))
    if state[K.PARTIAL]:
        state[state[K.SECTORS_AT] : state[K.L2P_AT]] = (1 << (state[K.SLOT_BYTES] // 512)) - 1
    state[N.READS : N.WRITE_BYTES + 1] = 0


def explain(drive: Drive, state: Ints) -> None:
    """Raise what a fault of the run means."""
    fault = Fault(int(state[M.FAULT]))
    done, total = int(state[M.DONE]), int(state[M.STREAM])
    after = f"after {done} of {total} requests"
    if fault == Fault.WORN:
        raise CheckFailed(
            f"drive '{drive.name}' is worn out {after}: {state[N.RETIRED]} blocks are retired, none is free"
        )
    if fault in (Fault.FULL, Fault.STALLED):
        waiting = "writes wait for free blocks, and no block has anything to reclaim"
        raise CheckFailed(
            f"drive '{drive.name}' is full {after}: {waiting}; "
            f"over-provisioning of {drive.ftl.over_provisioning:.1%} of {int(state[K.BLOCKS])} blocks is too little"
        )
    if fault == Fault.POOL:
        raise CheckFailed(f"drive '{drive.name}' has too many commands in flight {after}: choose a smaller --iodepth")


def latencies(log: Ints, op: Op) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Seconds from arrival to submission, from there to completion, and both, of the requests of one kind."""
    rows = log[(log[:, Log.OP] & 255) == op]
    waited = (rows[:, Log.SENT] - rows[:, Log.ARRIVED]) / TICKS
    served = (rows[:, Log.DONE] - rows[:, Log.SENT]) / TICKS
    return waited, served, waited + served
