"""What a drive gives, by formulas: no event is simulated.

A load is a closed network: ``depth`` requests go round the stations (firmware cores, links, channels, dies). With the
time that a request needs at each station, throughput is at most depth over the sum of times (Little's law), and at most
the rate of the busiest station. In between, requests that chose the same die or channel wait for each other: mean value
analysis (Reiser and Lavenberg, JACM 1980), with the remaining half of a service that an arrival finds going on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp
from typing import TYPE_CHECKING

from hwsim.devices.storage.drive import Drive

if TYPE_CHECKING:
    from hwsim.devices.storage.load import Load

DOORBELL, POINTER, COMPLETION, COMMAND = 2, 4, 16, 64
ROUNDS = 200


@dataclass(frozen=True, slots=True)
class Station:
    """``servers`` alike that requests choose among; ``seconds`` is what one request asks of all of them together.

    ``chosen`` by the address: requests may meet at one server while others are idle.
    """

    name: str
    seconds: float
    servers: float
    chosen: bool = False

    @property
    def rate(self) -> float:
        """Requests per second at most."""
        return self.servers / self.seconds if self.seconds else float("inf")


@dataclass(frozen=True, slots=True)
class Answer:
    """Requests and bytes per second, mean latency in seconds, and what binds."""

    iops: float
    bandwidth: float
    latency: float
    bound: str
    write_amplification: float


def analyse(drive: Drive, load: Load) -> Answer:
    """The closed forms' answer for a load."""
    waf = amplification(drive, load)
    share = load.reads
    read_stations, read_time = reading(drive, load.bs)
    write_stations, write_time = writing(drive, load.bs, waf)
    if drive.ftl.mapping_cache:
        miss = missed(drive, load)
        read_stations, read_time = _with_map(drive, read_stations, read_time, miss, True)
        write_stations, write_time = _with_map(drive, write_stations, write_time, miss, drive.cache.capacity == 0)
    stations = [
        _mixed(one, other, share, load.random) for one, other in zip(read_stations, write_stations, strict=True)
    ]
    rest = share * read_time + (1 - share) * write_time
    throughput, bound = _solve(stations, rest, load.depth)
    return Answer(throughput, throughput * load.bs, load.depth / throughput, bound, waf)


def _mixed(one: Station, other: Station, share: float, random: bool) -> Station:
    """The station of a mix of reads and writes, as many servers as the more parallel of both."""
    servers = max(one.servers, other.servers)
    seconds = servers * (share * one.seconds / one.servers + (1 - share) * other.seconds / other.servers)
    return Station(one.name, seconds, servers, (one.chosen if share else other.chosen) and random)


def missed(drive: Drive, load: Load) -> float:
    """Reads of the table per request: of entries that are not cached, or of each page of the table once in order."""
    ftl = drive.ftl
    units = max(1.0, load.bs / ftl.mapping_unit)
    if not load.random:
        return units * ftl.mapping_stored / drive.nand.page
    used = (load.size or drive.capacity) / ftl.mapping_unit
    held = ftl.mapping_cache / ftl.mapping_entry
    return max(0.0, 1 - held / used) if load.count > held / units else 1.0


def _with_map(
    drive: Drive, stations: list[Station], alone: float, miss: float, waits: bool
) -> tuple[list[Station], float]:
    """Stations and time with ``miss`` reads of the table, which the request waits for or not."""
    nand = drive.nand
    moved = nand.codeword * drive.byte_seconds
    read = drive.bus.read + sum(nand.reads) / len(nand.reads) + moved
    extra = {"channels": drive.bus.read + moved, "dies": read}
    found = [replace(one, seconds=one.seconds + miss * extra.get(one.name, 0.0)) for one in stations]
    return found, alone + (miss * read if waits else 0.0)


def reading(drive: Drive, nbytes: int) -> tuple[list[Station], float]:
    """The stations of a read, and the time of one alone that is not at a station."""
    nand = drive.nand
    pages = max(1, ceil(nbytes / nand.page))
    moved = pages * ceil(min(nbytes, nand.page) / nand.codeword) * nand.codeword
    per_page = drive.bus.read + moved / pages * drive.byte_seconds
    read = sum(nand.reads) / len(nand.reads)
    held = drive.bus.read + read + (0.0 if nand.cache_read else per_page - drive.bus.read)
    luns = drive.luns * (nand.planes if nand.independent_planes else 1)
    up = message(drive, nbytes) + message(drive, COMPLETION) + message(drive, POINTER)
    stations = [
        Station("firmware", drive.nvme.read_time, drive.nvme.cores),
        Station("link", up, 1),
        Station("channels", pages * per_page, nand.channels, True),
        Station("dies", pages * held, luns, True),
    ]
    at_once = min(pages, nand.channels)
    together = drive.bus.read + read + ceil(pages / nand.channels) * (per_page - drive.bus.read)
    alone = drive.nvme.read_latency + down(drive) + drive.nvme.read_time + up + together
    # What one request alone takes beyond the stations' shares of it, which overlap for its pages.
    return stations, alone if at_once else 0.0


def writing(drive: Drive, nbytes: int, waf: float) -> tuple[list[Station], float]:
    """The stations of a write, and the time of one alone."""
    nand = drive.nand
    buffered = drive.cache.capacity > 0
    row = drive.row if buffered else min(drive.row, ceil(nbytes / nand.page) * nand.page)
    rows = max(nbytes, 0 if buffered else min(nbytes, row)) / row * waf
    program = sum(nand.programs) / len(nand.programs)
    data = row * drive.byte_seconds
    command = drive.row_pages * (drive.bus.program + (drive.width - 1) * drive.bus.further_program)
    moves = (
        max(0.0, waf - 1) * nbytes / nand.page * (sum(nand.reads) / len(nand.reads) + nand.page * drive.byte_seconds)
    )
    stations = [
        Station("firmware", drive.nvme.write_time, drive.nvme.cores),
        Station("link", message(drive, nbytes) + message(drive, COMMAND) + 2 * message(drive, DOORBELL), 1),
        Station("channels", rows * (data + command), nand.channels, not buffered),
        Station("dies", rows * (data + command + program) + moves, drive.luns, not buffered),
    ]
    dram = drive.cache.latency + (nbytes / drive.cache.bandwidth if drive.cache.bandwidth else 0.0)
    flash = dram if buffered else data + command + program
    ways = down(drive) + message(drive, POINTER) + message(drive, nbytes) + message(drive, COMPLETION)
    return stations, drive.nvme.write_latency + drive.nvme.write_time + ways + flash


def message(drive: Drive, nbytes: int) -> float:
    """Seconds of a message on the link."""
    return (nbytes + ceil(nbytes / drive.pcie.payload) * drive.pcie.overhead) / drive.pcie.bandwidth


def down(drive: Drive) -> float:
    """Seconds until a command has reached the drive."""
    return message(drive, DOORBELL) + message(drive, POINTER) + message(drive, COMMAND)


def amplification(drive: Drive, load: Load) -> float:
    """Write amplification of random overwrites in the steady state, 1 where nothing is collected.

    With space r = physical over logical bytes, victims are found with a share x of valid data where r (1 - x) =
    -ln x (Desnoyers, SYSTOR'12, for blocks taken in order; greedy does a little better): amplification 1 / (1 - x).
    """
    if load.reads == 1 or not load.random or load.prepared(drive) != "steady":
        return 1.0
    kept = 2 + drive.ftl.start * drive.nand.blocks
    ratio = max(1.0, 1 - kept / drive.nand.blocks) / (1 - drive.ftl.over_provisioning)
    valid = 0.5
    for _ in range(ROUNDS):
        valid = exp(-ratio * (1 - valid)) if ratio > 1 else 1.0
    return 1.0 / max(1e-3, 1 - valid)


def _solve(stations: list[Station], alone: float, depth: int) -> tuple[float, str]:
    """Requests per second with ``depth`` in flight, and the station that binds, or "depth"."""
    slowest = min(stations, key=lambda station: station.rate)
    throughput = min(depth / alone, slowest.rate)
    for _ in range(ROUNDS):
        waits = 0.0
        for station in stations:
            if station.seconds == 0:
                continue
            busy = min(1.0, throughput / station.rate)
            others = (depth - 1) / depth * throughput
            if station.chosen:
                waits += _wait(station, others, busy)
        throughput = min(0.5 * throughput + 0.5 * depth / (alone + waits), slowest.rate)
    bound = slowest.name if throughput > 0.85 * slowest.rate else "depth"
    return throughput, bound


def _wait(station: Station, others: float, busy: float) -> float:
    """Mean wait before one of a station's servers, found by the rest of the requests (M/D/1, its length bounded)."""
    load = min(0.98, others / station.rate)
    return station.seconds * load / (2 * (1 - load)) * min(1.0, 2 * busy)
