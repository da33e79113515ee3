"""Loads in fio's words, and the stream of requests that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from hwsim.devices.storage.drive import Drive
from hwsim.devices.storage.state import SECTOR, STREAM_SIZE, Ints
from hwsim.devices.storage.things import Op
from hwsim.errors import InputError, Problem

Pattern: TypeAlias = Literal["read", "write", "randread", "randwrite", "rw", "readwrite", "randrw", "trim", "randtrim"]
Precondition: TypeAlias = Literal["none", "layout", "fill", "steady"]
MIXED = ("rw", "readwrite", "randrw")
MOST_REQUESTS = 20_000_000
MOST_DEPTH = 65536


@dataclass(frozen=True, slots=True)
class Load:
    """What the host asks for: ``number_ios`` requests (or enough) of ``bs`` bytes, ``iodepth`` of each job in flight.

    Jobs share the first ``size`` bytes of the drive; sequential jobs start at equal distances in it.
    """

    rw: Pattern = "randread"
    bs: int = 4096
    iodepth: int = 1
    numjobs: int = 1
    number_ios: int | None = None
    rwmixread: int = 50
    size: int | None = None
    precondition: Precondition | None = None
    seed: int = 1

    @property
    def count(self) -> int:
        """Requests: as asked, or so many that some 200,000 pages of 16 KiB are moved, and the queue is filled often."""
        if self.number_ios is not None:
            return self.number_ios
        most = min(100_000, 200_000 * 16384 // max(self.bs, 16384))
        return max(most, 20 * self.depth, 1000)

    @property
    def depth(self) -> int:
        """Requests in flight."""
        return self.iodepth * self.numjobs

    @property
    def random(self) -> bool:
        """Whether addresses are drawn at random."""
        return self.rw.startswith("rand")

    @property
    def reads(self) -> float:
        """The share of reads."""
        if self.rw in MIXED:
            return self.rwmixread / 100
        return 1.0 if self.rw in ("read", "randread") else 0.0

    def prepared(self, drive: Drive) -> Precondition:
        """How the drive is prepared: fio lays out what will be read, unless the drive reads what was never written."""
        laid_out = self.reads > 0 and not drive.mechanics.unwritten_reads
        return self.precondition or ("layout" if laid_out else "none")

    def check(self) -> None:
        """Raise `InputError` for what makes no sense, all at once."""
        rules = (
            (self.bs >= SECTOR and self.bs % SECTOR == 0, "--bs", self.bs, f"a multiple of {SECTOR} bytes"),
            (self.bs <= 2**26, "--bs", self.bs, "at most 64 MiB"),
            (self.iodepth >= 1, "--iodepth", self.iodepth, "1 or more"),
            (self.numjobs >= 1, "--numjobs", self.numjobs, "1 or more"),
            (self.depth <= MOST_DEPTH, "--iodepth", self.depth, f"at most {MOST_DEPTH} requests in flight"),
            (0 <= self.rwmixread <= 100, "--rwmixread", self.rwmixread, "0 to 100"),
            (1 <= self.count <= MOST_REQUESTS, "--number_ios", self.count, f"1 to {MOST_REQUESTS}"),
            (self.size is None or self.size >= self.bs, "--size", self.size, "at least --bs"),
        )
        problems = [
            Problem(file=name, got=str(value), expected=expected) for holds, name, value, expected in rules if not holds
        ]
        if problems:
            raise InputError(*problems)

    def stream(self, size: int) -> Ints:
        """The requests over the first ``size`` bytes: op, offset, bytes, arrival."""
        rng = np.random.default_rng(self.seed)
        count, places = self.count, max(1, size // self.bs)
        found = np.zeros((count, STREAM_SIZE), np.int64)
        if self.rw in MIXED:
            found[:, 0] = np.where(rng.random(count) < self.reads, Op.READ, Op.WRITE)
        else:
            found[:, 0] = {"read": Op.READ, "write": Op.WRITE, "trim": Op.TRIM}[self.rw.removeprefix("rand")]
        number = np.arange(count)
        in_turn = number // self.numjobs + number % self.numjobs * (places // self.numjobs)
        found[:, 1] = (rng.integers(0, places, count) if self.random else in_turn % places) * self.bs
        found[:, 2] = self.bs
        return found
