"""A drive simulated by plain Python, with objects and a heap: what the compiled simulator must equal to the tick.

It knows reads and uncached writes of single pages that need no collection, on a drive whose pages lie striped.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from math import ceil

from hwsim.devices.storage.build import page_types, stripe, ticks
from hwsim.devices.storage.drive import Drive
from hwsim.devices.storage.state import TICKS

READ, WRITE = 0, 1


@dataclass
class Request:
    """One request of one page."""

    op: int
    page: int
    nbytes: int
    sent: int = 0


@dataclass
class Lun:
    """A die: what it does, and what waits for it."""

    busy: bool = False
    reads: deque[Request] = field(default_factory=deque)
    writes: deque[Request] = field(default_factory=deque)


class SlowDrive:
    """Serves ``requests`` with ``depth`` in flight; `run` gives (op, sent, done) in the order of completion."""

    def __init__(self, drive: Drive, requests: list[Request], depth: int) -> None:
        self.drive, self.waiting, self.depth = drive, deque(requests), depth
        nand = drive.nand
        self.luns = [[Lun() for _ in range(nand.chips * nand.dies)] for _ in range(nand.channels)]
        self.turn = [0] * nand.channels
        self.leaving: list[deque[tuple[Request, Lun]]] = [deque() for _ in range(nand.channels)]
        self.channel_busy = [False] * nand.channels
        self.free = {"up": 0, "down": 0}
        self.events: list[tuple[int, int, int, Callable[[], None]]] = []
        self.done: list[tuple[int, int, int]] = []
        self.now = self.count = 0
        self.order, self.types = stripe(drive), page_types(drive)
        self.kicks: set[int] = set()

    def run(self) -> list[tuple[int, int, int]]:
        for _ in range(min(self.depth, len(self.waiting))):
            self.send()
        while self.events:
            self.now, _, _, action = heapq.heappop(self.events)
            action()
            for channel in sorted(self.kicks):
                self.kick(channel)
            self.kicks.clear()
        return self.done

    def at(self, time: int, source: int, action: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.events, (time, source, self.count, action))

    def message(self, nbytes: int) -> int:
        packets = ceil(nbytes / self.drive.pcie.payload)
        return self.rated(nbytes + packets * self.drive.pcie.overhead, TICKS / self.drive.pcie.bandwidth)

    def rated(self, nbytes: int, per_byte: float) -> int:
        rate = round(per_byte * 2**20)
        return -(-nbytes * rate // 2**20)

    def link(self, way: str, length: int, action: Callable[[], None] | None) -> None:
        self.free[way] = max(self.now, self.free[way]) + length
        if action is not None:
            self.at(self.free[way], {"up": 1, "down": 2}[way], action)

    def send(self) -> None:
        request = self.waiting.popleft()
        request.sent = self.now
        self.link("down", self.message(2), lambda: self.fetch(request))

    def fetch(self, request: Request) -> None:
        self.link("up", self.message(4), lambda: self.link("down", self.message(64), lambda: self.arrive(request)))

    def arrive(self, request: Request) -> None:
        if request.op == READ:
            self.queue(request)
        else:
            self.link(
                "up",
                self.message(4),
                lambda: self.link("down", self.message(request.nbytes), lambda: self.queue(request)),
            )

    def place(self, request: Request) -> tuple[int, Lun, int]:
        """Channel, LUN and source of a page."""
        nand = self.drive.nand
        plane = int(self.order[request.page % len(self.order)])
        die = plane // nand.planes
        per_channel = nand.chips * nand.dies
        channel = die // per_channel
        return channel, self.luns[channel][die % per_channel], 7 + nand.channels + plane

    def queue(self, request: Request) -> None:
        channel, lun, _ = self.place(request)
        (lun.reads if request.op == READ else lun.writes).append(request)
        self.kicks.add(channel)

    def kick(self, channel: int) -> None:
        if self.channel_busy[channel]:
            return
        if self.start(channel, READ) or self.send_data(channel):
            return
        self.start(channel, WRITE)

    def start(self, channel: int, op: int) -> bool:
        luns = self.luns[channel]
        for _ in luns:
            lun = luns[self.turn[channel]]
            turn, self.turn[channel] = self.turn[channel], (self.turn[channel] + 1) % len(luns)
            queue = lun.reads if lun.reads else lun.writes
            if queue and queue[0].op == op and not lun.busy:
                self.command(channel, lun, queue.popleft())
                return True
            assert turn < len(luns)
        return False

    def command(self, channel: int, lun: Lun, request: Request) -> None:
        bus, nand = self.drive.bus, self.drive.nand
        lun.busy = self.channel_busy[channel] = True
        source = self.place(request)[2]
        if request.op == READ:
            length, work = ticks(bus.read), ticks(nand.reads[0])
        else:
            length, work = (
                ticks(bus.program) + self.rated(request.nbytes, self.drive.byte_seconds * TICKS),
                ticks(nand.programs[0]),
            )

        def sent() -> None:
            self.channel_busy[channel] = False
            self.kicks.add(channel)
            self.at(self.now + work, source, lambda: self.worked(channel, lun, request))

        self.at(self.now + length, 7 + channel, sent)

    def worked(self, channel: int, lun: Lun, request: Request) -> None:
        self.kicks.add(channel)
        if request.op == READ:
            self.leaving[channel].append((request, lun))
        else:
            lun.busy = False
            self.complete(request)

    def send_data(self, channel: int) -> bool:
        if not self.leaving[channel]:
            return False
        request, lun = self.leaving[channel].popleft()
        self.channel_busy[channel] = True

        def out() -> None:
            self.channel_busy[channel] = lun.busy = False
            self.kicks.add(channel)
            self.complete(request)

        self.at(self.now + self.rated(request.nbytes, self.drive.byte_seconds * TICKS), 7 + channel, out)
        return True

    def complete(self, request: Request) -> None:
        length = self.message(16) + (self.message(request.nbytes) if request.op == READ else 0)

        def finished() -> None:
            self.done.append((request.op, request.sent, self.now))
            self.link("down", self.message(2), None)
            if self.waiting:
                self.send()

        self.link("up", length, finished)
