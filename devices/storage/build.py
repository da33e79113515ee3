"""From a drive's figures and a load to the arrays of the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import ceil, floor

import numpy as np

from hwsim.devices.storage.drive import Drive
from hwsim.devices.storage.ftl import CHOICES, COST_BENEFIT, FIFO, GREEDY
from hwsim.devices.storage.state import FIXED, MOST_PLANES, RATE_BITS, STREAM_SIZE, TICKS, TYPES, Ints, K, M
from hwsim.devices.storage.things import Bl, Block, Ch, Entry, Gr, Kind, Log, Lru, Lun, Op, Pl, Rq, Server, Sv, Tx
from hwsim.errors import InputError

POLICIES = {"greedy": GREEDY, "random-greedy": CHOICES, "cost-benefit": COST_BENEFIT, "fifo": FIFO}
MOST_WORDS = 2**29
MOST_CHANNELS = 62
MOST_SOURCES = 2**16
WINDOW = 32
"""Pages of a victim on their way, per ganged plane."""


@dataclass(frozen=True, slots=True)
class Span:
    """What is simulated of a drive: bytes of logical space, blocks of a group, pages of a block.

    ``mapped`` with a table of where units lie, ``partial`` where requests may cover parts of units.
    """

    nbytes: int
    blocks: int
    pages: int
    mapped: bool
    partial: bool


def build(drive: Drive, stream: Ints, span: Span, depth: int, traced: bool = False, seed: int = 1) -> Ints:
    """The state of ``drive`` before the first request of ``stream`` (op, offset, bytes, arrival in ticks)."""
    constant = constants(drive, span, depth, traced)
    if drive.nand.channels > MOST_CHANNELS:
        raise InputError(f"drive '{drive.name}' has more than {MOST_CHANNELS} channels")
    if constant[K.PLANE_SOURCE] + drive.groups * drive.width > MOST_SOURCES:
        raise InputError(f"drive '{drive.name}' has more than {MOST_SOURCES} channels and planes")
    # A request may be in the ring of the drive's memory once for each of its units.
    parts = int(stream[:, 2].max(initial=0)) // drive.ftl.mapping_unit + 3
    constant[K.RING_PLACES] = 1 << ceil(np.log2(depth * parts + 2))
    tables = sizes(drive, constant, stream, span)
    words = FIXED + sum(tables.values())
    if words > MOST_WORDS:
        expected = f"at most {MOST_WORDS:.3g} words of memory, not {words:.3g}: choose a smaller --size"
        raise InputError(f"drive '{drive.name}' is too large to simulate: {expected}")
    state = np.zeros(words, np.int64)
    place = FIXED
    for name, size in tables.items():
        constant[name] = place
        place += size
    for name, value in constant.items():
        state[name] = int(value)
    _set_tables(state, drive, stream)
    _set_things(state, drive)
    state[M.RANDOM] = seed
    state[M.STREAM] = len(stream)
    if span.mapped:
        _set_blocks(state, 3 if drive.mechanics.open_map_block else 2)
    return state


def sizes(drive: Drive, k: dict[K, float], stream: Ints, span: Span) -> dict[K, int]:
    """Words of each table."""
    groups, blocks = drive.groups, int(k[K.BLOCKS])
    block_slots = int(k[K.BLOCK_SLOTS])
    slots = groups * blocks * block_slots if span.mapped else 0
    luns, planes = int(k[K.CHANNELS] * k[K.LUNS]), groups * drive.width
    servers = Server.CORE + max(1, drive.nvme.cores)
    map_pages = _map_pages(k)
    kept = bool(k[K.KEEP] and k[K.BUFFERED] and span.mapped)
    return {
        K.CHANNELS_AT: drive.nand.channels * Ch.SIZE,
        K.LUNS_AT: luns * Lun.SIZE,
        K.PLANES_AT: planes * Pl.SIZE,
        K.GROUPS_AT: groups * Gr.SIZE,
        K.BLOCKS_AT: groups * blocks * Bl.SIZE if span.mapped else 0,
        K.ORDER_AT: groups,
        K.PAGE_TYPE_AT: drive.nand.pages,
        K.ARRAY_AT: len(Kind) * TYPES,
        K.COMMANDS_AT: len(Kind) * MOST_PLANES,
        K.SERVERS_AT: servers * Sv.SIZE,
        K.RING_AT: servers * int(k[K.RING_PLACES]) * 2,
        K.HEAP_AT: int(k[K.PLANE_SOURCE]) + planes + 64 * luns * bool(k[K.SUSPEND]) + 8,
        K.TX_AT: (_transactions(k, stream) + 1) * Tx.SIZE,
        K.REQUEST_AT: int(k[K.REQUESTS]) * Rq.SIZE,
        K.STREAM_AT: len(stream) * STREAM_SIZE,
        K.LOG_AT: len(stream) * Log.SIZE,
        K.ROWS_AT: slots // int(k[K.ROW_SLOTS]),
        K.SECTORS_AT: int(k[K.LPNS]) if span.partial else 0,
        K.L2P_AT: int(k[K.LPNS]) if span.mapped else 0,
        K.P2L_AT: slots,
        K.ENTRIES_AT: int(k[K.MAP_ENTRIES]) * Entry.SIZE,
        K.MAP_INDEX_AT: int(k[K.LPNS] // k[K.MAP_LINE]) + 1 if k[K.MAP_ENTRIES] else 0,
        K.MAP_WAIT_AT: map_pages,
        K.MAP_WRITE_AT: map_pages,
        K.KEPT_AT: int(k[K.BUFFER]) * Entry.SIZE if kept else 0,
        K.KEPT_INDEX_AT: int(k[K.LPNS]) if kept else 0,
        K.SEEN_AT: int(k[K.LPNS]) if kept else 0,
    }


def constants(drive: Drive, span: Span, depth: int, traced: bool) -> dict[K, float]:
    """The constants of a run; see `K`."""
    return {
        **_geometry(drive, span),
        **_flash(drive),
        **_translation(drive, span),
        **_front(drive),
        K.REQUESTS: depth,
        K.TRACED: traced,
    }


def _geometry(drive: Drive, span: Span) -> dict[K, float]:
    """How many of what there are, and sizes."""
    nand, ftl, how = drive.nand, drive.ftl, drive.mechanics
    luns = nand.chips * (1 if how.chip_serial else nand.dies)
    page_slots = nand.page // ftl.mapping_unit
    return {
        K.CHANNELS: nand.channels,
        K.LUNS: luns,
        K.LUN_PLANES: nand.planes * (nand.dies if how.chip_serial else 1),
        K.DIE_PLANES: nand.planes,
        K.WIDTH: drive.width,
        K.GROUPS: drive.groups,
        K.BLOCKS: span.blocks,
        K.ROWS: span.pages // drive.row_pages,
        K.ROW_PAGES: drive.row_pages,
        K.ROW_SLOTS: page_slots * drive.width * drive.row_pages,
        K.PAGE_SLOTS: page_slots,
        K.BLOCK_SLOTS: page_slots * drive.width * span.pages,
        K.SLOT_BYTES: ftl.mapping_unit,
        K.PAGE_BYTES: nand.page,
        K.GRANULE: nand.codeword,
        K.LPNS: -(-span.nbytes // ftl.mapping_unit),
        K.MAPPED: span.mapped,
        K.PARTIAL: span.partial,
    }


def _flash(drive: Drive) -> dict[K, float]:
    """What dies can do, and how channels serve them."""
    nand, how = drive.nand, drive.mechanics
    return {
        K.DATA_FIRST: how.data_before_commands,
        K.INDEPENDENT: nand.independent_planes,
        K.CACHE_READ: nand.cache_read,
        K.ENDURANCE: nand.endurance,
        K.BUS_RATE: rate(drive.byte_seconds * TICKS),
        K.RETRY: nand.retry_rate * 2**31,
        K.UNCORRECTABLE: nand.uncorrectable_rate * 2**31,
        K.RETRY_TICKS: ticks(nand.retry),
        K.SUSPEND: nand.suspend_programs + 2 * nand.suspend_erases,
        K.SUSPEND_TICKS: ticks(nand.suspend),
        K.SUSPEND_LEAST: ticks(nand.suspend_least),
    }


def _translation(drive: Drive, span: Span) -> dict[K, float]:
    """Allocation, collection, levelling, the mapping cache."""
    nand, ftl, how = drive.nand, drive.ftl, drive.mechanics
    return {
        K.STATIC: ftl.static,
        K.UNWRITTEN: how.unwritten_reads,
        K.GC_FIRST: how.collection_first,
        K.GC_POLICY: POLICIES[ftl.policy],
        K.GC_CHOICES: ftl.choices or floor(np.log2(span.blocks)),
        K.GC_START: ftl.free_to_start(span.blocks),
        K.GC_STOP: ftl.least_free,
        K.GC_LIMIT: ftl.victims,
        K.GC_WINDOW: WINDOW * drive.width,
        K.COPY_WHOLE: how.whole_page_moves,
        K.LEVELLING: ftl.levelling,
        K.MAP_ENTRIES: entries(drive),
        K.MAP_LINE: ftl.mapping_line,
        K.MAP_COVER: nand.page // ftl.mapping_stored,
        K.MAP_BYTES: nand.codeword,
        K.MAP_IDLE: how.unserved_map_writes,
    }


def _front(drive: Drive) -> dict[K, float]:
    """The write cache, firmware, the link."""
    ftl, how = drive.ftl, drive.mechanics
    single = drive.row == ftl.mapping_unit
    cores = Server.CORE + max(1, drive.nvme.cores)
    return {
        K.BUFFERED: drive.cache.capacity > 0,
        K.BUFFER: drive.cache.capacity // ftl.mapping_unit,
        K.UNDERWAY: drive.cache.underway or 2**62,
        K.CORES: drive.nvme.cores,
        K.FIRMWARE_READ: ticks(drive.nvme.read_time),
        K.FIRMWARE_WRITE: ticks(drive.nvme.write_time),
        K.DELAY_READ: ticks(drive.nvme.read_latency),
        K.DELAY_WRITE: ticks(drive.nvme.write_latency),
        K.DRAM_LATENCY: ticks(drive.cache.latency),
        K.DRAM_ROW: drive.cache.row if how.halved_dram_rows else 0,
        K.DRAM_PRECHARGE: ticks(drive.cache.precharge),
        K.PAYLOAD: drive.pcie.payload,
        K.OVERHEAD: drive.pcie.overhead,
        K.LINK_RATE: rate(TICKS / drive.pcie.bandwidth),
        K.DRAM_RATE: rate(TICKS / drive.cache.bandwidth) if drive.cache.bandwidth else 0,
        K.CHANNEL_SOURCE: cores,
        K.PLANE_SOURCE: cores + drive.nand.channels,
        K.KEEP: ticks(drive.cache.keep) if single else 0,
    }


def entries(drive: Drive) -> int:
    """Entries of the mapping cache, 0 where the whole table is in memory."""
    ftl = drive.ftl
    return ftl.mapping_cache // (ftl.mapping_entry * ftl.mapping_line)


def ticks(seconds: float) -> int:
    """Seconds in whole ticks."""
    return round(seconds * TICKS)


def rate(ticks_per_byte: float) -> int:
    """A rate as the simulator takes it."""
    return round(ticks_per_byte * (1 << RATE_BITS))


def stripe(drive: Drive) -> Ints:
    """The groups in the order of allocation, such as CWDP: channels turn fastest, then ways (chips), dies, planes."""
    nand = drive.nand
    sizes = {"C": nand.channels, "W": nand.chips, "D": nand.dies, "P": nand.planes // drive.width}
    letters = drive.ftl.allocation
    found = []
    for digits in product(*(range(sizes[letter]) for letter in reversed(letters))):
        at = dict(zip(reversed(letters), digits, strict=True))
        chip = at["C"] * sizes["W"] + at["W"]
        found.append((chip * sizes["D"] + at["D"]) * sizes["P"] + at["P"])
    return np.array(found, np.int64)


def page_types(drive: Drive) -> Ints:
    """Which page of its cells a page is: in turn, or as MQSim has it for TLC (lower pages run ahead)."""
    pages = np.arange(drive.nand.pages, dtype=np.int64)
    bits = len(drive.nand.reads)
    if drive.mechanics.shadow_pages and bits == 3:
        return np.where(pages <= 5, 0, np.where(pages <= 7, 1, ((pages - 8) >> 1) % 3)).astype(np.int64)
    return pages % bits


def _set_tables(state: Ints, drive: Drive, stream: Ints) -> None:
    """What is looked up: order of groups, kinds of pages, times, the stream."""
    nand, bus = drive.nand, drive.bus
    state[state[K.ORDER_AT] :][: drive.groups] = stripe(drive)
    state[state[K.PAGE_TYPE_AT] :][: nand.pages] = page_types(drive)
    state[state[K.STREAM_AT] :][: stream.size] = stream.ravel()
    for column in range(TYPES):
        at = state[K.ARRAY_AT] + column
        state[at + Kind.READ * TYPES] = ticks(nand.reads[column % len(nand.reads)])
        state[at + Kind.PROGRAM * TYPES] = ticks(nand.programs[column % len(nand.programs)])
        state[at + Kind.ERASE * TYPES] = ticks(nand.erase)
    for planes in range(1, nand.planes + 1):
        at = state[K.COMMANDS_AT] + planes
        state[at + Kind.READ * MOST_PLANES] = ticks(bus.read + (planes - 1) * bus.further_read)
        state[at + Kind.PROGRAM * MOST_PLANES] = ticks(bus.program + (planes - 1) * bus.further_program)
        state[at + Kind.ERASE * MOST_PLANES] = ticks(bus.erase + (planes - 1) * bus.further_erase)


def _set_things(state: Ints, drive: Drive) -> None:
    """Channels, LUNs, planes and groups know each other; free lists hold all transactions and requests."""
    luns, lun_planes = int(state[K.LUNS]), int(state[K.LUN_PLANES])
    channels = _table(state, K.CHANNELS_AT, Ch.SIZE, drive.nand.channels)
    number = np.arange(len(channels))
    channels[:, Ch.SOURCE] = state[K.CHANNEL_SOURCE] + number
    channels[:, Ch.LUN] = state[K.LUNS_AT] + number * luns * Lun.SIZE
    channels[:, Ch.BIT] = 1 << number
    lun = _table(state, K.LUNS_AT, Lun.SIZE, len(channels) * luns)
    lun[:, Lun.CHANNEL] = state[K.CHANNELS_AT] + np.arange(len(lun)) // luns * Ch.SIZE
    planes = _table(state, K.PLANES_AT, Pl.SIZE, len(lun) * lun_planes)
    number = np.arange(len(planes))
    planes[:, Pl.DUE] = -1
    planes[:, Pl.LUN] = state[K.LUNS_AT] + number // lun_planes * Lun.SIZE
    planes[:, Pl.DIE] = number // drive.nand.planes
    planes[:, Pl.BIT] = 1 << (number % drive.nand.planes)
    planes[:, Pl.SOURCE] = state[K.PLANE_SOURCE] + number
    groups = _table(state, K.GROUPS_AT, Gr.SIZE, drive.groups)
    groups[:, Gr.PLANE] = state[K.PLANES_AT] + np.arange(len(groups)) * drive.width * Pl.SIZE
    transactions = int(state[K.REQUEST_AT] - state[K.TX_AT]) // Tx.SIZE
    state[M.FREE_TX] = _chain(state, int(state[K.TX_AT]) + Tx.SIZE, transactions - 1, Tx.SIZE)
    state[M.FREE_REQUEST] = _chain(state, int(state[K.REQUEST_AT]), int(state[K.REQUESTS]), Rq.SIZE)
    kept = int(state[K.KEPT_INDEX_AT] - state[K.KEPT_AT]) // Entry.SIZE
    for place, at, count in ((M.MAP_LIST, K.ENTRIES_AT, int(state[K.MAP_ENTRIES])), (M.KEPT_LIST, K.KEPT_AT, kept)):
        state[place + Lru.FREE] = _chain(state, int(state[at]), count, Entry.SIZE) if count else 0
    state[M.EPOCH] = 1


def _set_blocks(state: Ints, opened: int) -> None:
    """The first blocks of each group are open: for the host's data, for collected data, for the table."""
    groups = _table(state, K.GROUPS_AT, Gr.SIZE, int(state[K.GROUPS]))
    per_group = int(state[K.BLOCKS])
    blocks = _table(state, K.BLOCKS_AT, Bl.SIZE, len(groups) * per_group)
    number = np.arange(len(blocks))
    blocks[:, Bl.GROUP] = state[K.GROUPS_AT] + number // per_group * Gr.SIZE
    blocks[:, Bl.SLOT] = (number % per_group * len(groups) + number // per_group) * state[K.BLOCK_SLOTS]
    blocks[number % per_group < opened, Bl.STATE] = Block.OPEN
    groups[:, Gr.BLOCK] = state[K.BLOCKS_AT] + np.arange(len(groups)) * per_group * Bl.SIZE
    groups[:, Gr.USER_BLOCK] = groups[:, Gr.BLOCK]
    groups[:, Gr.GC_BLOCK] = groups[:, Gr.BLOCK] + Bl.SIZE
    groups[:, Gr.FREE] = per_group - opened


def _table(state: Ints, at: K, size: int, count: int) -> Ints:
    """A table of the state, a row for each of its things."""
    return state[state[at] : state[at] + count * size].reshape(count, size)


def _chain(state: Ints, first: int, count: int, size: int) -> int:
    """Link ``count`` things by their first words; returns the first."""
    places = first + np.arange(count) * size
    state[places[:-1]] = places[1:]
    return first


def _transactions(k: dict[K, float], stream: Ints) -> int:
    """Transactions that may exist at a time: parts of requests in flight, pages of victims, of the table both ways."""
    largest = int(stream[:, 2].max(initial=0)) // int(k[K.SLOT_BYTES]) + 2
    writes = bool((stream[:, 0] == Op.WRITE).any()) or bool(k[K.UNWRITTEN])
    victims = int(k[K.GROUPS] * k[K.GC_LIMIT]) * int(k[K.GC_WINDOW] + 2 * k[K.PAGE_SLOTS] + 4) if writes else 0
    rows = int(k[K.BUFFER] // k[K.ROW_SLOTS]) if k[K.BUFFERED] and writes else 0
    parts = (victims, 2 * rows, 2 * _map_pages(k))
    return min(2 * largest * int(k[K.REQUESTS]) + sum(min(part, 2**20) for part in parts) + 64, 2**24)


def _map_pages(k: dict[K, float]) -> int:
    """Pages of the table, 0 where the whole table is in memory."""
    return int(k[K.LPNS] // k[K.MAP_COVER]) + 1 if k[K.MAP_ENTRIES] else 0
