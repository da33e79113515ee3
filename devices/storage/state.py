"""The state of a simulated drive: one array of whole numbers, read alike by compiled code and by Python.

A thing is its place in the array, and a column is added to it: `s[lun + Lun.OUT]`. The array begins with what there is
one of (constants `K`, counters `M`, counts `N`); tables follow, and constants ending in ``_AT`` say where. Times are
ticks of 0.1 ns, sizes bytes, rates ticks per byte in units of 2^-20.

A *LUN* takes one command at a time: a die, or a whole chip where the dies of a chip do not overlap. A *slot* is the
physical place of one mapping unit, a *row* what one program command writes (the pages of all ganged planes, one or
several per cell), a *group* the planes whose blocks are erased together. Slots, rows and mapping units are numbered.
"""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from enum import IntEnum
from typing import TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from hwsim.compiled import compiled as machine_code
from hwsim.devices.storage.address import Words

TICKS = 10**10
"""Ticks per second."""
SECTOR = 512
RATE_BITS = 20
SOURCE_BITS = 16
"""A pending event is one number, its time above these bits and its source in them: ties go by source.

Times of events count from M.BASE, so that 47 bits suffice for them however long a run is; see `events.rebase`.
"""
HORIZON = 2**45
"""Ticks (an hour) after which M.BASE moves, and the longest that the host sleeps at once between requests."""

Ints: TypeAlias = NDArray[np.int64]
State: TypeAlias = MutableSequence[int]
"""The array as the compiled code sees it."""
F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """``function`` for other compiled ones."""
    return machine_code(function, "numpy", inner=True)


def inlined(function: F) -> F:
    """``function`` as a part of those that call it: for what each event goes through and few places call."""
    return machine_code(function, "numpy", inner=True, inline=True)


def entry(function: F) -> F:
    """``function`` for Python."""
    return machine_code(function, "numpy")


def words(array: Ints) -> State:
    """The array for functions that are compiled; it must outlive the call."""
    return cast("State", array.view(Words))


class K(IntEnum):
    """What does not change during a run."""

    CHANNELS = 0
    LUNS = 1  # per channel
    LUN_PLANES = 2
    DIE_PLANES = 3
    WIDTH = 4  # planes of a group
    GROUPS = 5
    BLOCKS = 6  # per group
    ROWS = 7  # per block
    ROW_PAGES = 8
    ROW_SLOTS = 9
    PAGE_SLOTS = 10
    BLOCK_SLOTS = 11
    SLOT_BYTES = 12
    PAGE_BYTES = 13
    GRANULE = 14  # bytes that leave a page at least
    LPNS = 15
    MAPPED = 16  # there is a table; else pages lie where a sequential fill puts them
    STATIC = 17  # a unit always goes to the same group
    PARTIAL = 18  # requests may cover parts of mapping units
    UNWRITTEN = 19  # reads of what was never written go to the flash
    DATA_FIRST = 20  # read data leave before any command is sent
    INDEPENDENT = 21
    CACHE_READ = 22
    GC_FIRST = 23  # a LUN with a victim serves nothing else
    GC_POLICY = 24
    GC_CHOICES = 25
    GC_START = 26  # free blocks of a group below which collection starts
    GC_STOP = 27  # and below which writes wait
    GC_LIMIT = 28  # victims of a group at a time
    GC_WINDOW = 29  # pages of a victim on their way
    ENDURANCE = 30
    LEVELLING = 31  # difference of erases that moves cold blocks, 0 for never
    BUFFERED = 32  # writes end in the write cache
    BUFFER = 33  # its slots
    UNDERWAY = 34  # bytes of it that may be on their way to the flash
    CORES = 35
    FIRMWARE_READ = 36
    FIRMWARE_WRITE = 37
    DELAY_READ = 38
    DELAY_WRITE = 39
    DRAM_LATENCY = 40
    DRAM_ROW = 41  # larger requests take MQSim's formula, 0 for never
    DRAM_PRECHARGE = 42
    PAYLOAD = 43
    OVERHEAD = 44
    BUS_RATE = 45
    LINK_RATE = 46
    DRAM_RATE = 47
    RETRY = 48  # share of reads, of 2^31
    UNCORRECTABLE = 49  # share of reads, of 2^31
    RETRY_TICKS = 50
    SUSPEND = 51  # 1 programs, 2 erases, 3 both give way to reads
    SUSPEND_TICKS = 52
    SUSPEND_LEAST = 53  # remaining ticks below which an operation is not worth suspending
    MAP_ENTRIES = 54  # of the mapping cache, 0 where the whole table is in memory
    MAP_LINE = 55  # mapping units of an entry
    MAP_COVER = 56  # mapping units of a page of the table
    TRACED = 57  # requests come at times of their own
    COPY_WHOLE = 58  # collection moves whole pages
    CHANNEL_SOURCE = 59
    PLANE_SOURCE = 60
    RING_PLACES = 61
    REQUESTS = 62
    CHANNELS_AT = 63
    LUNS_AT = 64
    PLANES_AT = 65
    GROUPS_AT = 66
    BLOCKS_AT = 67
    ORDER_AT = 68
    PAGE_TYPE_AT = 69
    ARRAY_AT = 70
    COMMANDS_AT = 71
    SERVERS_AT = 72
    RING_AT = 73
    HEAP_AT = 74
    TX_AT = 75
    REQUEST_AT = 76
    ENTRIES_AT = 77
    MAP_INDEX_AT = 78
    STREAM_AT = 79
    LOG_AT = 80
    ROWS_AT = 81
    SECTORS_AT = 82
    L2P_AT = 83
    P2L_AT = 84
    MAP_WAIT_AT = 85
    KEPT_AT = 86
    KEPT_INDEX_AT = 87
    SEEN_AT = 88
    MAP_BYTES = 89  # read of a page of the table
    MAP_IDLE = 90  # writes of the table are never served
    KEEP = 91  # what is written again within so many ticks stays in the write cache, 0 for never
    MAP_WRITE_AT = 92  # whether the write of a page of the table waits


class M(IntEnum):
    """What there is one of and changes."""

    GAP = 98  # whether the top of the heap is vacant
    KICKED = 99  # the last of the channels in KICKS
    NOW = 100
    HEAP = 101
    FREE_TX = 102
    FREE_REQUEST = 103
    NEXT = 104  # of the stream
    DONE = 105
    IN_FLIGHT = 106
    BUFFER = 107
    UNDERWAY = 108
    STRIPE = 109
    WAIT_HEAD = 110
    WAIT_TAIL = 111
    FAULT = 112
    RANDOM = 113
    EVENTS = 114
    CLOCK = 115  # slots given out, as an age of blocks
    STREAM = 116  # its length
    MAP_LIST = 117  # see `Lru`
    KICKS = 121  # bits of channels that may have work to begin
    KEPT_LIST = 122  # see `Lru`
    EPOCH = 126
    EPOCH_ENDS = 127
    STOP = 128  # requests done at which a run pauses
    BASE = 129  # from which pending events count


class N(IntEnum):
    """Counts."""

    READS = 130  # flash pages
    PROGRAMS = 131  # rows
    ERASES = 132
    READ_COMMANDS = 133
    PROGRAM_COMMANDS = 134
    ERASE_COMMANDS = 135
    HOST_SLOTS = 136
    GC_SLOTS = 137
    PADDED_SLOTS = 138
    PROGRAMMED_SLOTS = 139
    UPDATE_READS = 140
    GC_READS = 141
    MAP_READS = 142
    MAP_WRITES = 143
    COLLECTIONS = 144
    LEVELLINGS = 145
    RETIRED = 146
    RETRIES = 147
    UNCORRECTABLE = 148
    SUSPENSIONS = 149
    BUFFER_HITS = 150
    DRAM_BYTES = 151
    TRIMMED = 152
    REWRITTEN = 153  # slots overwritten in the write cache
    READ_BYTES = 154
    WRITE_BYTES = 155
    MAP_PROGRAMS = 156  # pages of the table


FIXED = 160
"""Where the tables begin."""
STREAM_SIZE = 4
"""Words of a request to come: op, offset, bytes, arrival."""
TYPES, MOST_PLANES = 8, 64
"""Places per kind in the tables of array and command times."""


class Fault(IntEnum):
    """Why a run stopped before its end."""

    NONE = 0
    FULL = 1  # or worn, where blocks are retired
    STALLED = 2
    POOL = 3
