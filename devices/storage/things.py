"""The columns of the things in the array: what is known of a transaction, a request, a plane..."""

from __future__ import annotations

from enum import IntEnum


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
    STOPS = 23  # when what was interrupted last has come to rest
    SIZE = 24


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
    ENDS = 16  # when what it does ends
    SIZE = 17


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
    POSTPONED = 9  # victims that there was no room for when they were due
    SIZE = 10


class Row(IntEnum):
    """A row is one word: whether its data are in the write cache, and how many reads its program waits for."""

    BUFFERED = 1
    READ = 2  # of one of them


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
    DONE = 9


class Lru(IntEnum):
    """A list in the order of use."""

    NEWEST = 0
    OLDEST = 1
    FREE = 2
    SIZE = 3


class Entry(IntEnum):
    """What is cached, in the order of use."""

    NEXT = 0  # older, or the next free one
    BEFORE = 1
    KEY = 2
    DIRTY = 3
    SECTORS = 4
    SIZE = 5


class Log(IntEnum):
    """What is noted of a request that is done."""

    OP = 0  # and above its 8 bits, whether it failed
    ARRIVED = 1
    SENT = 2
    DONE = 3
    BYTES = 4
    SIZE = 5
