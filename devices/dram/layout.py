"""What the simulation of DRAM channels works on: one flat memory of integers, and what lies where in it.

The memory ``m`` holds records; a record is referred to by the place where it begins, so that ``m[c + C_FLOOR]`` is the
floor of the channel at ``c``. What banks have is laid out by field instead, ``bank[B_ROW, b]`` with ``b`` counted
through all channels, as a search goes through one field of all banks of a channel, several at a time. ``spread`` is how
long a command keeps others of its data bus waiting. Both are views of ``m`` (`views`).

``c`` is a channel, ``b`` a bank, ``u`` a unit, ``s`` a slot: the place of a queued request. Times are ticks (see
`hwsim.devices.dram.rules`); those of commands that start on whole clocks only are rounded up when they are written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., object])
_njit = cast("Callable[..., Callable[[object], object]]", njit)  # its stubs lack two of its options
# Numba looks whether an index counts from the end unless it cannot be negative: a place by itself, and an index in a
# loop that several banks go through at once.
at = cast("Callable[[int], int]", np.uint32)
U = np.uint64

ACT, PRE, RD, WR, REF, REFPB, ACT2 = range(7)
COMMANDS = ("ACT", "PRE", "RD", "WR", "REF", "REFpb", "ACT2")
BANK, GROUP, STACK, UNIT, BUS = range(5)  # how two banks of one data bus are related, the nearest first
FAR = 1 << 44  # a time that never comes
SUBTICKS = 16  # bits: intervals between arrivals are in ticks / 2^16
OPENED, REFRESH, QUEUE, HALF = range(4)  # where the next command of a channel comes from

# Settings, at the beginning of the memory; times in ticks.
FAW, READ_DONE, WRITE_DONE, REFRESH_EVERY, PER_BANK, READ_QUEUE, WRITE_QUEUE, DRAIN_ABOVE, DRAIN_BELOW = range(9)
TWO_BUSES, ODD, PROTECT_HITS, ROW_ACCESSES, FORWARDING, OUTSTANDING, INTERVAL, CLOCK_RUNS_ON, HALVES_WITHIN = range(
    9, 18
)
# Counts, and where the records of each kind begin; the last place of the ring of completions.
CHANNELS, UNITS, BANKS, GROUPS, BUS_BANKS, FIRST_CHANNEL, FIRST_UNIT, FIRST_BANK, GAPS, SPANS, SPREAD = range(18, 29)
FLYING, RING = 29, 30
# The load's front: the next request, served ones, what it waits for, when to try again, reads in flight, the ring of
# their completions, the time, refreshes since a request was last served.
F_NEXT, F_SERVED, F_BLOCKED, F_TRY, F_FLYING, F_HEAD, F_TAIL, F_TIME, F_IDLE = range(31, 40)
# Counters: one per command, then what a request found in its bank, and what the write queue answered.
N_COMMANDS = 40
N_HIT, N_MISS, N_CONFLICT, N_FORWARDED, N_MERGED = range(47, 52)
HEADER = 52

# Of a bank: first the earliest ACT, PRE, RD and WR by all rules; ACT and PRE by its own alone; its open row (-1: none),
# all bits set while none is open; the request that it was opened for while that waits (-1: none), whether that writes;
# column accesses since; its channel, its unit, its bank group within the data bus.
B_OWN_ACT, B_OWN_PRE, B_ROW, B_CLOSED, B_WAITS, B_WRITES, B_USED, B_CHANNEL, B_UNIT, B_GROUP = range(4, 14)
# And twice, for reads and for writes, what it offers (a request's number, NONE: nothing): the one it was opened for, of
# the queued ones the oldest to the open row, and the oldest to another; slots of both, of the first and the last.
B_AWAITED, B_HIT, B_MISS, B_HIT_SLOT, B_MISS_SLOT, B_HEAD, B_TAIL = range(14, 28, 2)
BANK_FIELDS = 28
# Of a unit (banks that share tRRD, tFAW and refresh: a rank, or a pseudo-channel of HBM): its banks, the banks of its
# data bus, the ring of its last four activations, open banks, since when, and for how long altogether.
U_BANK, U_BANK_END, U_BUS, U_BUS_END, U_RING = range(5)
U_TURN, U_OPEN, U_SINCE, U_ACTIVE = range(8, 12)
UNIT_RECORD = 12
# Of a channel, for reads and for writes: entries of its queues, how many banks offer one that they were opened for, a
# hit, a miss; free slots and a list of them, slots filled since the last look and a list of them.
C_READS, C_WRITES, C_OPENED, C_HITS, C_MISSES = 0, 1, 2, 4, 6
C_FREE, C_FREE_LIST, C_NEW, C_NEW_LIST = range(8, 12)
# When its buses are free, the earliest time of a further command, whether writes drain, when the next refresh is due,
# how many are done and how many were due, when its data clock stops; the command to come: its key, whence, where,
# what; where its units and banks begin; whether the next command is yet to be found; the bank whose activation wants
# its second command (-1: none), and until when.
C_COLUMN_BUS, C_ROW_BUS, C_FLOOR, C_DRAIN, C_REFRESH, C_REFRESHED, C_DUE, C_CLOCK = range(12, 20)
C_KEY, C_FROM, C_PLACE, C_COMMAND, C_FIRST_UNIT, C_FIRST_BANK, C_STALE, C_HALF, C_HALF_BY = range(20, 29)
# Of the banks that were opened for requests the first to go on, as far as it is known: when, for which, RD or WR.
C_SURE_UNTIL, C_SURE_NUMBER, C_SURE_COMMAND = range(29, 32)
CHANNEL_RECORD = 32
# Of a queued request: its bank, row, number, whether it was counted as hit, miss or conflict, its address, whether it
# is written, the slots of the bank's next and previous one of its kind (0: none).
Q_BANK, Q_ROW, Q_NUMBER, Q_COUNTED, Q_ADDRESS, Q_WRITE, Q_NEXT, Q_BEFORE = range(8)
QUEUE_RECORD = 8
# Of a burst: its bank (counted through all channels), row, address and whether it is written; of its times: when it
# arrived, when it was done; of a command: when, which, in which bank, which row.
L_BANK, L_ROW, L_ADDRESS, L_WRITE = range(4)
T_ARRIVED, T_DONE = range(2)
FREE, SLOT, CREDIT, PACE = range(4)  # what the front of the load waits for

# A key orders commands that could come next: their start in ticks times 8, plus their rank.
KEY_BITS = 3
NEVER = FAR << KEY_BITS
# Requests of one queue that wait for the same kind of command are ordered by one number: how long they wait above these
# bits, their number in them. A load has fewer requests, a wait of a rule is shorter than HELD_BACK.
NUMBER_BITS = 26
NUMBERS = (1 << NUMBER_BITS) - 1
HELD_BACK = 1 << 35
NONE = 1 << 62
# What a command keeps waiting: rows of ``spread`` by the bank group that it goes to, over the banks of the data bus.
ACT_ACT, RD_RD, RD_WR, WR_RD, WR_WR = range(5)
SPREADS = ((ACT, ACT), (RD, RD), (RD, WR), (WR, RD), (WR, WR))


def inlined(function: F) -> F:
    """``function`` as part of the compiled ones that call it, which are kept (`hwsim.compiled`).

    It cannot make arrays, and does not count the references to those that it gets: that took longer than the work.
    """
    return cast("F", _njit(error_model="numpy", forceinline=True, no_cpython_wrapper=True, _nrt=False)(function))


@njit(error_model="numpy")
def views(m: Ints) -> tuple[Ints, Ints]:
    """The banks by field, and what commands keep waiting by ``SPREADS``, group and bank of the data bus."""
    banks, groups, beside = m[CHANNELS] * m[BANKS], m[GROUPS], m[BUS_BANKS]
    bank = m[m[FIRST_BANK] : m[FIRST_BANK] + BANK_FIELDS * banks].reshape((BANK_FIELDS, banks))
    spread = m[m[SPREAD] : m[SPREAD] + 5 * groups * beside].reshape((5 * groups, beside))
    return bank, spread
