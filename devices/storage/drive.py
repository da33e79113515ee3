"""A drive's figures in SI units, as the simulator and the closed forms take them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import floor

from hwsim.card import Figure


@dataclass(frozen=True, slots=True)
class Nand:
    """Flash dies and how they are wired. Seconds, bytes.

    ``reads`` and ``programs`` hold one time per page of a cell, lower first; a one-shot program writes all pages of
    its cells at once and has one time.
    """

    cell: str
    channels: int
    chips: int
    dies: int
    planes: int
    blocks: int
    pages: int
    page: int
    reads: tuple[float, ...]
    programs: tuple[float, ...]
    erase: float
    endurance: float
    bits: int
    codeword: int
    one_shot: bool = False
    ganged_planes: bool = False
    independent_planes: bool = False
    cache_read: bool = False
    suspend_programs: bool = False
    suspend_erases: bool = False
    suspend: float = 0.0
    suspend_least: float = 0.0
    retry_rate: float = 0.0
    retry: float = 0.0
    uncorrectable_rate: float = 0.0

    @property
    def capacity(self) -> float:
        """Bytes of all pages."""
        return float(self.channels * self.chips * self.dies * self.planes * self.blocks * self.pages * self.page)


@dataclass(frozen=True, slots=True)
class Bus:
    """A channel: 8 bits wide, one command or page at a time. B/s, seconds."""

    bandwidth: float
    read: float
    program: float
    erase: float
    further_read: float
    further_program: float
    further_erase: float


@dataclass(frozen=True, slots=True)
class Ftl:
    """The translation layer; shares are of a group's blocks."""

    mapping_unit: int
    over_provisioning: float
    allocation: str
    static: bool
    policy: str
    choices: int
    start: float
    reserve: int
    victims: int
    levelling: int
    mapping_cache: int = 0
    mapping_entry: int = 8
    mapping_line: int = 1
    mapping_stored: int = 4

    @property
    def least_free(self) -> int:
        """Free blocks of a group below which writes wait: the open block's successor, and one to collect into."""
        return max(self.reserve, 2)

    def free_to_start(self, blocks: int) -> int:
        """Free ones of a group's blocks below which collection starts."""
        return max(floor(self.start * blocks), self.least_free)


@dataclass(frozen=True, slots=True)
class Cache:
    """The write cache in the drive's memory; capacity 0 where writes go to the flash before they complete."""

    capacity: int
    bandwidth: float
    latency: float
    underway: int
    row: int = 0
    precharge: float = 0.0
    keep: float = 0.0


@dataclass(frozen=True, slots=True)
class Nvme:
    """Queues, and the firmware's time for a command: on a core, and beside it."""

    queue_pairs: int
    queue_depth: int
    cores: int
    read_time: float
    write_time: float
    read_latency: float
    write_latency: float


@dataclass(frozen=True, slots=True)
class Pcie:
    """The host link; a packet carries at most ``payload`` bytes and ``overhead`` bytes of headers."""

    lanes: int
    lane_bandwidth: float
    payload: int
    overhead: int

    @property
    def bandwidth(self) -> float:
        """Raw bytes per second in one direction."""
        return self.lanes * self.lane_bandwidth

    @property
    def data_bandwidth(self) -> float:
        """Bytes of data per second in one direction."""
        return self.bandwidth * self.payload / (self.payload + self.overhead)


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules per page read, page programmed and block erased, and per byte on the ways; watts at idle and when busy."""

    read: float
    program: float
    erase: float
    bus: float
    dram: float
    link: float
    idle: float
    active: float


@dataclass(frozen=True, slots=True)
class Engine:
    """What computes beside the channels: its way to the flash, B/s. Its memory and links are on the device's card."""

    dma_bandwidth: float


@dataclass(frozen=True, slots=True)
class Mechanics:
    """Simplifications and defects of other simulators, all off by default, to compare on equal terms."""

    chip_serial: bool = False
    data_before_commands: bool = False
    truncated_bus: bool = False
    unwritten_reads: bool = False
    collection_first: bool = False
    whole_page_moves: bool = False
    halved_dram_rows: bool = False
    shadow_pages: bool = False
    unserved_map_writes: bool = False
    open_map_block: bool = False


@dataclass(frozen=True, slots=True)
class Drive:
    """A drive's card in SI units; ``figures`` has the provenance of each by dotted path."""

    name: str
    title: str
    nand: Nand
    bus: Bus
    ftl: Ftl
    cache: Cache
    nvme: Nvme
    pcie: Pcie
    energy: Energy
    mechanics: Mechanics = Mechanics()
    engine: Engine | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Planes that are programmed and erased together."""
        return self.nand.planes if self.nand.ganged_planes else 1

    @property
    def byte_seconds(self) -> float:
        """Seconds of a byte on a channel; truncated, a byte takes whole nanoseconds, none at all above 1 GB/s."""
        seconds = 1.0 / self.bus.bandwidth
        return floor(seconds * 1e9 * (1 + 1e-12)) * 1e-9 if self.mechanics.truncated_bus else seconds

    @property
    def luns(self) -> int:
        """What takes one command at a time: dies, or whole chips."""
        nand = self.nand
        return nand.channels * nand.chips * (1 if self.mechanics.chip_serial else nand.dies)

    @property
    def row_pages(self) -> int:
        """Pages of a plane that one program writes."""
        return self.nand.bits if self.nand.one_shot else 1

    @property
    def row(self) -> int:
        """Bytes of one program command."""
        return self.width * self.row_pages * self.nand.page

    @property
    def groups(self) -> int:
        """Sets of planes whose blocks are erased together."""
        nand = self.nand
        return nand.channels * nand.chips * nand.dies * nand.planes // self.width

    def kept_free(self, blocks: int) -> int:
        """Free ones of a group's blocks under writes that do not pause.

        Each block that is filled starts one that is collected, which keeps their number; it only falls where writes
        overtake collection, and they do not where dies that collect serve nothing else.
        """
        return self.ftl.free_to_start(blocks) if self.mechanics.collection_first else self.ftl.least_free

    @property
    def capacity(self) -> float:
        """Bytes that the host sees."""
        return self.nand.capacity * (1.0 - self.ftl.over_provisioning)
