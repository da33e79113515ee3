"""What a drive gives, by formulas: no event is simulated.

A load is a closed network: ``depth`` requests go round the stations (firmware cores, links, channels, dies). With the
time that a request needs at each station, throughput is at most depth over the sum of times (Little's law), and at most
the rate of the busiest station. In between, requests that chose the same die or channel wait for each other: mean value
analysis (Reiser and Lavenberg, JACM 1980), with the remaining half of a service that an arrival finds going on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil, exp, gcd, inf
from statistics import fmean as mean
from typing import TYPE_CHECKING

from hwsim.devices.storage.drive import Drive

if TYPE_CHECKING:
    from hwsim.devices.storage.load import Load

DOORBELL, POINTER, COMPLETION, COMMAND = 2, 4, 16, 64
ROUNDS, HALVINGS = 200, 50
OPEN = 1.0
"""Blocks that two open ones lack on average: they are half full."""
MOST_AMPLIFICATION = 1e3
WINDOW = (0.2, 0.9)
"""The completions that rates and mean times are taken over: what fills and what drains the queues is left out."""


@dataclass(frozen=True, slots=True)
class Station:
    """``servers`` alike that requests choose among; ``seconds`` is what one request asks of all of them together.

    ``chosen`` by the address: requests may meet at one server while others are idle; ``visit`` is then how long one
    that is met stays. ``flash`` or before it.
    """

    name: str
    seconds: float
    servers: float
    chosen: bool = False
    visit: float = 0.0
    flash: bool = False

    @property
    def load(self) -> float:
        """Seconds of one server per request."""
        return self.seconds / self.servers


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
    reads, read_time = reading(drive, load)
    writes, write_time = writing(drive, load, waf)
    if drive.ftl.mapping_cache:
        miss = missed(drive, load)
        reads, read_time = _with_map(drive, load, reads, read_time, miss, True)
        writes, write_time = _with_map(drive, load, writes, write_time, miss, drive.cache.capacity == 0)
    rest = load.reads * read_time + (1 - load.reads) * write_time
    stations = list(zip(reads, writes, strict=True))
    throughput, bound = _solve(drive, load, stations, rest)
    if drive.cache.capacity and load.reads < 1 and load.prepared(drive) != "steady":
        early, early_bound = _solve(drive, load, stations, rest, absorbing=True)
        taken = absorbed(drive, load, early, throughput)
        if taken > 0.5:
            bound = early_bound
        throughput = 1 / (taken / early + (1 - taken) / throughput)
    return Answer(throughput, throughput * load.bs, load.depth / throughput, bound, waf)


def absorbed(drive: Drive, load: Load, early: float, late: float) -> float:
    """The share of the requests from which rates are taken that the write cache takes before it is full.

    It fills at the rate at which requests are taken less that at which the flash takes them. A drive in its steady
    state has no free blocks to promise, so that writes wait for those from the first one on.
    """
    if early <= late * (1 + 1e-9):
        return 0.0
    held = drive.cache.capacity / load.bs / (1 - load.reads)
    full = held / (1 - late / early) / load.count
    first, last = WINDOW
    return min(1.0, max(0.0, (full - first) / (last - first)))


def missed(drive: Drive, load: Load) -> float:
    """The share of requests that wait for reads of the table: of entries that are not cached."""
    ftl = drive.ftl
    units = max(1.0, load.bs / ftl.mapping_unit)
    if not load.random:
        return min(1.0, load.bs / ftl.mapping_unit / ftl.mapping_line)
    used = (load.size or drive.capacity) / ftl.mapping_unit
    held = ftl.mapping_cache / ftl.mapping_entry
    return max(0.0, 1 - held / used) if load.count > held / units else 1.0


def _with_map(
    drive: Drive, load: Load, stations: list[Station], alone: float, miss: float, waits: bool
) -> tuple[list[Station], float]:
    """Stations and time with ``miss`` reads of the table; in order, all in flight wait for one and the same."""
    nand = drive.nand
    moved = nand.codeword * drive.byte_seconds
    read = drive.bus.read + mean(nand.reads) + moved
    shared = miss if load.random else miss / load.depth
    extra = {"channels": drive.bus.read + moved, "dies": read}
    found = [replace(one, seconds=one.seconds + shared * extra.get(one.name, 0.0)) for one in stations]
    return found, alone + (miss * read if waits else 0.0)


def touched(nbytes: int, part: int) -> float:
    """Parts that a request touches on average, which begins at a multiple of its size."""
    return (nbytes + part - gcd(nbytes, part)) / part


def reading(drive: Drive, load: Load) -> tuple[list[Station], float]:
    """The stations of a read, and the time of one alone.

    Data lie in rows, as a sequential fill puts them: those of a row on one die, row after row on other channels. Random
    overwrites leave each mapping unit on a page of its own.
    """
    nand, nbytes = drive.nand, load.bs
    scattered = load.prepared(drive) == "steady"
    row, page = (drive.ftl.mapping_unit,) * 2 if scattered else (drive.row, nand.page)
    rows, pages = touched(nbytes, row), touched(nbytes, page)
    moved = touched(nbytes, nand.codeword) / pages * nand.codeword * drive.byte_seconds
    array = mean(nand.reads) + nand.retry_rate * nand.retry
    in_order = (load.iodepth * nbytes + row - gcd(nbytes, row)) / row
    spread = inf if load.random else load.numjobs * in_order
    # Planes that read at the same time: each for itself, or by one command, for one request or for those in order.
    planes = max(1.0, min(drive.width, pages / rows))
    together = planes if load.random else max(1.0, min(drive.width, load.iodepth * pages / in_order))
    held = drive.bus.read + array / (1 if nand.independent_planes else together) + (0.0 if nand.cache_read else moved)
    luns = min(drive.luns, spread) * (nand.planes if nand.independent_planes else 1)
    stations = [
        Station("firmware", drive.nvme.read_time, drive.nvme.cores),
        Station("memory", 0.0, 1),
        Station("link to host", message(drive, nbytes) + message(drive, COMPLETION) + message(drive, POINTER), 1),
        Station("link to drive", down(drive), 1),
        Station(
            "channels",
            pages * (drive.bus.read + moved),
            min(nand.channels, spread),
            True,
            pages * (drive.bus.read + moved),
            True,
        ),
        Station("dies", pages * held, luns, True, pages * held, True),
    ]
    rounds, per_row = ceil(pages / rows / planes), pages / rows
    crowd = rows / min(rows, nand.channels)
    alone = rounds * array + (min(planes, per_row) if nand.cache_read else per_row) * moved * crowd
    alone = drive.bus.read + max(alone, array + per_row * moved * crowd)
    ways = down(drive) + stations[2].seconds
    return stations, drive.nvme.read_latency + drive.nvme.read_time + ways + alone


def writing(drive: Drive, load: Load, waf: float) -> tuple[list[Station], float]:
    """The stations of a write, and the time of one alone; without a write cache each fills rows of its own."""
    nand, nbytes, width = drive.nand, load.bs, drive.width
    buffered = drive.cache.capacity > 0
    filled = touched(nbytes, drive.row) if drive.ftl.static else ceil(nbytes / drive.row)
    rows = nbytes / drive.row if buffered else filled
    data = nbytes / rows * drive.byte_seconds
    command = drive.row_pages * (drive.bus.program + (width - 1) * drive.bus.further_program)
    program = data + command + mean(nand.programs)
    channel, die = collecting(drive, waf)
    units = rows * drive.row / drive.ftl.mapping_unit
    waits = drive.mechanics.collection_first and waf > 1
    chosen = not buffered and drive.ftl.static
    memory = memory_seconds(drive, nbytes) if buffered else 0.0
    up = 2 * message(drive, POINTER) + message(drive, COMPLETION)
    downs = message(drive, nbytes) + message(drive, COMMAND) + 2 * message(drive, DOORBELL)
    stations = [
        Station("firmware", drive.nvme.write_time, drive.nvme.cores),
        Station("memory", memory, 1),
        Station("link to host", up, 1),
        Station("link to drive", downs, 1),
        Station(
            "channels", rows * waf * (data + command) + units * channel, nand.channels, chosen, data + command, True
        ),
        Station(
            "dies",
            rows * waf * program + units * die,
            drive.luns,
            chosen or waits,
            batch(drive, program, rows * (waf - 1) * program / units + die) if waits else program,
            True,
        ),
    ]
    ways = down(drive) + message(drive, POINTER) + message(drive, nbytes) + message(drive, COMPLETION)
    flash = memory if buffered else program * ceil(rows / nand.channels)
    return stations, drive.nvme.write_latency + drive.nvme.write_time + ways + flash


def batch(drive: Drive, program: float, moved: float) -> float:
    """How long a die that is met busy stays so, where one that collects serves nothing else.

    It collects for ``moved`` seconds per mapping unit that a host writes, all that a block of those asks for at once:
    what is met is longer than the mean, E[S^2] / E[S].
    """
    nand = drive.nand
    units = nand.pages * nand.page * drive.width / drive.ftl.mapping_unit
    own = program * units * drive.ftl.mapping_unit / drive.row
    return (program * own + (units * moved) ** 2) / (own + units * moved)


def collecting(drive: Drive, waf: float) -> tuple[float, float]:
    """Seconds of a channel and of a die that collection takes per mapping unit that a host writes.

    For each, waf - 1 units are read and moved. Victims have a share x = 1 - 1 / waf of valid units, so that of a page
    of m units a part 1 - (1 - x)^m is read: once, for m x units. Each block is erased after so many units.
    """
    nand, unit = drive.nand, drive.ftl.mapping_unit
    moved, valid, many = waf - 1, 1 - 1 / waf, nand.page // unit
    pages = moved * (1 - (1 - valid) ** many) / (many * valid) if moved > 0 else 0.0
    nbytes = pages * nand.page if drive.mechanics.whole_page_moves else moved * unit
    leaving = pages * drive.bus.read + nbytes * drive.byte_seconds
    erases = waf * unit / (nand.pages * nand.page * drive.width) if moved > 0 else 0.0
    array = pages * (mean(nand.reads) + nand.retry_rate * nand.retry) / drive.width
    busy = array + erases * nand.erase + (pages * drive.bus.read if nand.cache_read else leaving)
    return leaving + erases * drive.bus.erase, busy


def memory_seconds(drive: Drive, nbytes: int) -> float:
    """An access to the drive's memory; larger ones as MQSim counts them, where the drive is told so."""
    cache = drive.cache
    row = cache.row if drive.mechanics.halved_dram_rows else 0
    if row == 0 or nbytes <= row:
        return cache.latency + nbytes / cache.bandwidth
    halves = nbytes // row // 2
    return 2 * cache.latency + halves * (row / cache.bandwidth + cache.precharge) + nbytes % row / cache.bandwidth


def message(drive: Drive, nbytes: int) -> float:
    """Seconds of a message on the link."""
    return (nbytes + ceil(nbytes / drive.pcie.payload) * drive.pcie.overhead) / drive.pcie.bandwidth


def down(drive: Drive) -> float:
    """Seconds until a command has reached the drive."""
    return message(drive, DOORBELL) + message(drive, POINTER) + message(drive, COMMAND)


def amplification(drive: Drive, load: Load) -> float:
    """Write amplification in the steady state that random overwrites leave, 1 where nothing is collected.

    The first writes in order find the same victims as further random ones: they too overwrite what lies anywhere.

    With space r = physical over logical bytes, victims are found with a share x of valid data where r (1 - x) =
    -ln x (Desnoyers, SYSTOR'12, for blocks taken in order; greedy collection finds better ones, the less so the larger
    blocks are): amplification 1 / (1 - x). Free blocks that collection keeps, and the open ones, hold no data.
    """
    if load.reads == 1 or load.prepared(drive) != "steady":
        return 1.0
    ratio = usable(drive, drive.nand.blocks) / (1 - drive.ftl.over_provisioning)
    low, high = 1 / MOST_AMPLIFICATION, 1.0
    for _ in range(HALVINGS):
        free = (low + high) / 2
        low, high = (free, high) if 1 - free > exp(-ratio * free) else (low, free)
    return 1 / high


def usable(drive: Drive, blocks: int) -> float:
    """The share of so many blocks of a group that holds data: not those that collection keeps, nor what is open."""
    opened = OPEN + drive.mechanics.open_map_block
    return max(0.0, 1 - (drive.kept_free(blocks) + opened) / blocks)


def _solve(
    drive: Drive, load: Load, stations: list[tuple[Station, Station]], alone: float, absorbing: bool = False
) -> tuple[float, str]:
    """Requests per second with so many in flight, and the station that binds, or "depth".

    Stations of reads and of writes are the same servers. ``absorbing``: the write cache takes writes as they come.
    """
    share, depth = load.reads, load.depth
    loads = {
        one.name: share * one.load + (0.0 if absorbing and other.flash else (1 - share) * other.load)
        for one, other in stations
    }
    name = max(loads, key=loads.__getitem__)
    most = 1 / loads[name]
    throughput = min(depth / alone, most)
    for _ in range(ROUNDS):
        others = (depth - 1) / depth * throughput
        waits = sum(_wait(drive, share, one, other, others) for one, other in stations)
        throughput = min(0.5 * throughput + 0.5 * depth / (alone + waits), most)
    return throughput, name if throughput > 0.85 * most else "depth"


def _wait(drive: Drive, share: float, one: Station, other: Station, rate: float) -> float:
    """Mean wait of a request before one of a station's servers, which the others load at ``rate``.

    Reads go first, but wait for the write that is being served (Cobham, Operations Research 1954), where it does not
    give way to them: W = R / (1 - load of reads), with R the mean rest of what is found in service. A read that finds a
    server free in a short queue waits less than this.
    """
    reads = min(0.98, rate * share * one.load)
    writes = min(1 - reads, rate * (1 - share) * other.load)
    gives_way = drive.nand.suspend_programs and one.name == "dies"
    rest = writes * (drive.nand.suspend if gives_way else other.visit / 2)
    wait = 0.0
    if one.chosen:
        wait += share * (reads * one.visit / 2 * min(1.0, 2 * reads) + rest) / (1 - reads)
    if other.chosen:
        full = min(0.98, reads + writes)
        wait += (1 - share) * (reads * one.visit + writes * other.visit) / 2 / (1 - full) * min(1.0, 2 * full)
    return wait
