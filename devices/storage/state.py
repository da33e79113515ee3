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
from numba import njit
from numpy.typing import NDArray

TICKS = 10**10
"""Ticks per second."""
SECTOR = 512
RATE_BITS = 20
SOURCE_BITS = 16
"""A pending event is one number, its time above these bits and its source in them: ties go by source."""

Ints: TypeAlias = NDArray[np.int64]
State: TypeAlias = MutableSequence[int]
"""The array as the compiled code sees it."""
F = TypeVar("F", bound=Callable[..., object])


def compiled(function: F) -> F:
    """``function`` compiled to machine code on first use and kept beside its file; ``.py_func`` is the plain one."""
    return cast("F", njit(cache=True, nogil=True, error_model="numpy")(function))


def words(array: Ints) -> State:
    """The array for functions that are compiled."""
    return cast("State", array)


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
    MAP_LINES = 54  # lines of the mapping cache, 0 where the whole table is in memory
    MAP_COVER = 55  # mapping units of a line
    MAP_BYTES = 56  # read for a missing line
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
    MAP_LINE_AT = 77
    MAP_INDEX_AT = 78
    STREAM_AT = 79
    LOG_AT = 80
    ROWS_AT = 81
    SECTORS_AT = 82
    L2P_AT = 83
    P2L_AT = 84


class M(IntEnum):
    """What there is one of and changes."""

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
    MAP_HEAD = 117
    MAP_TAIL = 118
    MAP_USED = 119
    KICKS = 120  # bits of channels that may have work to begin


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


FIXED = 160
"""Where the tables begin."""


class Fault(IntEnum):
    """Why a run stopped before its end."""

    NONE = 0
    FULL = 1
    WORN = 2
    STALLED = 3
    POOL = 4


class Tx(IntEnum):
    """A transaction: what one plane, or the ganged planes of a row, is asked to do."""

    NEXT = 0
    MATE = 1  # further ones of the same command
    KIND = 2
    SOURCE = 3
    REQUEST = 4
    LUN = 5
    PLANE = 6
    SPAN = 7  # planes
    PAGE = 8
    SLOT = 9
    COUNT = 10
    BYTES = 11
    BLOCK = 12  # the victim that it serves
    ROW = 13  # the row that is programmed, or whose program waits for this
    FAILED = 14
    SIZE = 15


class Kind(IntEnum):
    """What a command does."""

    READ = 0
    PROGRAM = 1
    ERASE = 2


class Source(IntEnum):
    """Whom a command serves."""

    USER = 0
    COLLECTION = 1
    MAP = 2
    UPDATE = 3  # the rest of a page that is written in part


class Queue(IntEnum):
    """The queues of a LUN."""

    MAP_READ = 0
    GC_READ = 1
    GC_WRITE = 2
    GC_ERASE = 3
    USER_READ = 4
    USER_WRITE = 5


class Rq(IntEnum):
    """A request in flight."""

    NEXT = 0
    OP = 1
    OFFSET = 2
    BYTES = 3
    LEFT = 4
    CURSOR = 5
    ARRIVED = 6
    SENT = 7
    ERROR = 8
    SIZE = 9


class Op(IntEnum):
    """What the host asks for."""

    READ = 0
    WRITE = 1
    TRIM = 2


class Lun(IntEnum):
    """A die, or a chip."""

    PENDING = 0
    EXCLUSIVE = 1  # 0, or the command that holds all planes: 1 program, 2 erase
    READING = 2
    OUT = 3  # pages read and not yet sent
    COLLECTING = 4
    LEAD = 5  # the plane whose event ends the exclusive command
    SUSPENDED = 6
    REMAINING = 7
    ENDS = 8
    TX = 9  # the exclusive command
    CHANNEL = 10
    HEADS = 11  # first of each queue
    TAILS = 17
    SIZE = 23


class Ch(IntEnum):
    """A channel."""

    BUSY = 0  # 0, or 1 a command, 2 data leaving
    TX = 1
    TURN = 2
    TICKS = 3
    BYTES = 4
    WAITING = 5
    PENDING = 6
    SOURCE = 7
    LUN = 8  # the first
    LEAVING = 9  # first of each queue of pages to leave: hosts', collected, of the map
    LAST = 12
    BIT = 15
    SIZE = 16


class Pl(IntEnum):
    """A plane."""

    BUSY = 0
    TX = 1
    OUT = 2
    TICKS = 3
    DUE = 4
    LUN = 5
    DIE = 6
    BIT = 7  # within its LUN
    SOURCE = 8
    SIZE = 9


class Bl(IntEnum):
    """A block of a group."""

    STATE = 0
    VALID = 1
    ERASES = 2
    PENDING = 3  # rows not yet programmed
    MOVES = 4
    CURSOR = 5
    CLOSED = 6  # when it was filled
    GROUP = 7
    SLOT = 8  # the first
    SIZE = 9


class Block(IntEnum):
    """The state of a block."""

    FREE = 0
    OPEN = 1
    FULL = 2
    VICTIM = 3
    RETIRED = 4


class Gr(IntEnum):
    """A group."""

    FREE = 0
    VICTIMS = 1
    USER_BLOCK = 2
    USER_USED = 3
    GC_BLOCK = 4
    GC_USED = 5
    ROW_BYTES = 6  # of the host's open row
    PLANE = 7  # the first
    BLOCK = 8  # the first
    SIZE = 9


class Row(IntEnum):
    """A row."""

    BUFFERED = 0
    READS = 1  # that its program waits for
    SIZE = 2


class Sv(IntEnum):
    """A server: it serves in order of arrival, so its next end is all that needs a place in the heap."""

    FREE_AT = 0
    HEAD = 1
    COUNT = 2
    TICKS = 3
    SIZE = 4


class Server(IntEnum):
    """Which server."""

    HOST = 0
    UP = 1
    DOWN = 2
    DRAM = 3
    READ_DELAY = 4
    WRITE_DELAY = 5
    CORE = 6  # and the other cores after it


class Stage(IntEnum):
    """Where a request is."""

    ARRIVE = 0
    DOORBELL = 1
    FETCH = 2
    COMMAND = 3
    FIRMWARE = 4
    READY = 5
    ASKED = 6
    DATA = 7
    BUFFERED = 8
    FROM_BUFFER = 9
    DONE = 10


class Log(IntEnum):
    """What is noted of a request that is done."""

    OP = 0  # and above its 8 bits, whether it failed
    ARRIVED = 1
    SENT = 2
    DONE = 3
    BYTES = 4
    SIZE = 5


STREAM_SIZE = 4
"""Words of a request to come: op, offset, bytes, arrival."""
TYPES, MOST_PLANES = 8, 64
"""Places per kind in the tables of array and command times."""
