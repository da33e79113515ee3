"""The command-level simulation of DRAM channels, from event to event, in numba.

Each channel has a read and a write queue, banks that were opened for a request which waits, and a refresh that falls
due every tREFI. Of all commands that these could issue next the earliest is issued; at the same time banks that were
opened come first, then a refresh that waits, then the oldest of a queue (first ready, first come, first served).
Between two commands nothing happens, so time leaps. Where rows and columns have a command bus each, one of each can
start in a tick, the column's first. Times are ticks (see `hwsim.devices.dram.rules`).

All state is records of integers in one flat memory ``m``; a record is referred to by the place where it begins, so that
``m[b + B_ROW]`` is the open row of the bank at ``b``. (Numba counts the references to every array taken out of a tuple,
which takes longer than the work.) ``c`` is a channel, ``b`` a bank, ``g`` a bank group, ``u`` a unit.
Layout and functions share this file, as numba's cache notices changes of a function's own file only.

A request leaves its queue with the activation made for it; the bank then waits for its column command, and no other
request may close it before. Requests that arrive in a tick can start in the next.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Ints = NDArray[np.int64]
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
# Counts, and where the records of each kind begin.
CHANNELS, UNITS, BANKS, FIRST_CHANNEL, FIRST_UNIT, FIRST_BANK, GAPS, SPANS, FLYING, GROUP_RECORD = range(18, 28)
# The load's front: the next request, served ones, what it waits for, when to try again, reads in flight, the ring of
# their completions, the time, refreshes since a request was last served.
F_NEXT, F_SERVED, F_BLOCKED, F_TRY, F_FLYING, F_HEAD, F_TAIL, F_TIME, F_IDLE = range(28, 37)
# Counters: one per command, then what a request found in its bank, and what the write queue answered.
N_COMMANDS = 37
N_HIT, N_MISS, N_CONFLICT, N_FORWARDED, N_MERGED = range(44, 49)
HEADER = 49

# Of a bank: first the earliest ACT, PRE, RD and WR by its own rules; its open row (-1: none), group and unit; when what
# a request for another row needs can start (FAR while the bank was opened for a request that waits) and whether that is
# ACT or PRE; column accesses since it was opened, the last search that saw a hit.
B_ROW, B_GROUP, B_UNIT, B_MISS_AT, B_MISS, B_USED, B_SEEN = range(4, 11)
BANK_RECORD = 11
# Of a bank group: the earliest ACT, PRE, RD and WR by the rules of all around it; its banks; and how the groups of its
# data bus are related to it, one field each from G_NEAR.
G_BANK, G_BANK_END, G_NEAR = 4, 5, 6
# Of a unit (banks that share tRRD, tFAW and refresh: a rank, or a pseudo-channel of HBM): its banks, its groups, all
# groups of its data bus, the ring of its last four activations, open banks, since when, and for how long altogether.
U_BANK, U_BANK_END, U_GROUP, U_GROUP_END, U_BUS, U_BUS_END, U_RING = range(7)
U_TURN, U_OPEN, U_SINCE, U_ACTIVE = range(10, 14)
UNIT_RECORD = 14
# Of a channel: entries of its queues and where they begin, opened banks and where, when its buses are free, the
# earliest time of a further command, whether writes drain, when the next refresh is due, how many are done and how many
# were due, when its data clock stops, the searches made; the command to come: its key, whence, where, what; where its
# units and banks begin; requests of the chosen queue that were searched, whether others have arrived since, whether
# the next command is yet to be found; the bank whose activation wants its second command (0: none), and until when.
C_READS, C_WRITES, C_READ_LIST, C_WRITE_LIST, C_OPENED, C_OPENED_LIST, C_COLUMN_BUS, C_ROW_BUS = range(8)
C_FLOOR, C_DRAIN, C_REFRESH, C_REFRESHED, C_DUE, C_CLOCK, C_SEARCH, C_KEY, C_FROM, C_PLACE, C_COMMAND = range(8, 19)
C_FIRST_UNIT, C_FIRST_BANK, C_KNOWN, C_TOUCHED, C_STALE, C_HALF, C_HALF_BY = range(19, 26)
CHANNEL_RECORD = 26
# Of a queued request: its bank, row, number, whether it was counted as hit, miss or conflict, its address.
Q_BANK, Q_ROW, Q_NUMBER, Q_COUNTED, Q_ADDRESS = range(5)
QUEUE_RECORD = 5
# Of an opened bank that awaits its request: the bank, RD or WR, the request's number.
O_BANK, O_COMMAND, O_NUMBER = range(3)
OPENED_RECORD = 3
# Of a burst: its bank (counted through all channels), row, address and whether it is written; of its times: when it
# arrived, when it was done; of a command: when, which, in which bank, which row.
L_BANK, L_ROW, L_ADDRESS, L_WRITE = range(4)
T_ARRIVED, T_DONE = range(2)
FREE, SLOT, CREDIT, PACE = range(4)  # what the front of the load waits for
STUCK_AFTER = 10_000  # refreshes without a request served
# A key orders commands that could come next: their start in ticks times 8, plus their rank.
KEY_BITS = 3
NEVER = FAR << KEY_BITS


@njit(cache=True, nogil=True, error_model="numpy")
def run(m: Ints, load: Ints, times: Ints, commands: Ints, goal: int) -> bool:
    """Simulate until ``goal`` bursts are served; False where nothing can happen any more."""
    first_channel, last = m[FIRST_CHANNEL], m[FIRST_CHANNEL] + m[CHANNELS] * CHANNEL_RECORD
    while m[F_SERVED] < goal:
        soonest, c = FAR, first_channel
        for other in range(first_channel, last, CHANNEL_RECORD):
            event = m[other + C_FLOOR] if m[other + C_STALE] else m[other + C_KEY] >> KEY_BITS
            event = min(event, m[other + C_REFRESH])
            if event < soonest:
                soonest, c = event, other
        if m[F_TRY] < soonest:
            m[F_TIME] = max(m[F_TRY], m[F_TIME])
            _admit(m, load, times)
            _consider_arrivals(m)
        elif soonest >= FAR or m[F_IDLE] > STUCK_AFTER:
            return False
        elif m[c + C_REFRESH] <= soonest:
            _refresh_due(m, c)
        elif m[c + C_STALE]:
            _search(m, c)
        else:
            m[F_TIME] = soonest
            _issue(m, c, soonest, times, commands)
    return True


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _refresh_due(m: Ints, c: int) -> None:
    m[c + C_FLOOR] = max(m[c + C_FLOOR], m[c + C_REFRESH])
    m[c + C_REFRESH] += m[REFRESH_EVERY]
    m[c + C_DUE] += 1 if m[PER_BANK] else m[UNITS]
    m[F_IDLE] += 1
    m[c + C_STALE] = 1


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _admit(m: Ints, load: Ints, times: Ints) -> None:
    """Take requests in their order until one has to wait; say for what and until when."""
    now = m[F_TIME]
    while m[F_HEAD] != m[F_TAIL] and m[m[FLYING] + m[F_HEAD] % m[OUTSTANDING]] <= now:
        m[F_HEAD] += 1
        m[F_FLYING] -= 1
    while True:
        m[F_TRY], m[F_BLOCKED] = FAR, FREE
        number = m[F_NEXT]
        if number == len(load):
            return
        wanted = (number * m[INTERVAL]) >> SUBTICKS
        if wanted > now:
            m[F_TRY], m[F_BLOCKED] = wanted, PACE
            return
        bank, write = load[number, L_BANK], load[number, L_WRITE]
        c = m[FIRST_CHANNEL] + bank // m[BANKS] * CHANNEL_RECORD
        if m[OUTSTANDING] and not write and m[F_FLYING] >= m[OUTSTANDING]:
            m[F_BLOCKED] = CREDIT
            if m[F_HEAD] != m[F_TAIL]:
                m[F_TRY] = m[m[FLYING] + m[F_HEAD] % m[OUTSTANDING]]
            return
        if not (m[FORWARDING] and m[c + C_WRITES] and _answered(m, c, load, number, times)):
            if m[c + C_READS + write] >= m[READ_QUEUE + write]:
                m[F_BLOCKED] = SLOT
                return
            _enter(m, c, load, number)
            if not write and m[OUTSTANDING]:
                m[F_FLYING] += 1
        times[number, T_ARRIVED] = wanted if m[INTERVAL] else now
        m[F_NEXT] += 1


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _answered(m: Ints, c: int, load: Ints, number: int, times: Ints) -> bool:
    """A request to an address whose write is queued: a read takes its data from there, a write replaces it."""
    address = load[number, L_ADDRESS]
    first = m[c + C_WRITE_LIST]
    for entry in range(first, first + m[c + C_WRITES] * QUEUE_RECORD, QUEUE_RECORD):
        if m[entry + Q_ADDRESS] == address:
            m[N_MERGED if load[number, L_WRITE] else N_FORWARDED] += 1
            m[F_SERVED] += 1
            times[number, T_DONE] = m[F_TIME] + 1
            return True
    return False


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _enter(m: Ints, c: int, load: Ints, number: int) -> None:
    """Put a request at the end of its queue."""
    write = load[number, L_WRITE]
    entry = m[c + C_READ_LIST + write] + m[c + C_READS + write] * QUEUE_RECORD
    m[entry + Q_BANK] = m[FIRST_BANK] + load[number, L_BANK] * BANK_RECORD
    m[entry + Q_ROW], m[entry + Q_NUMBER] = load[number, L_ROW], number
    m[entry + Q_COUNTED], m[entry + Q_ADDRESS] = 0, load[number, L_ADDRESS]
    m[c + C_READS + write] += 1
    m[c + C_TOUCHED] = 1


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _consider_arrivals(m: Ints) -> None:
    """Let what has arrived come before each channel's next command where it can start earlier."""
    first = m[FIRST_CHANNEL]
    for c in range(first, first + m[CHANNELS] * CHANNEL_RECORD, CHANNEL_RECORD):
        if m[c + C_TOUCHED]:
            m[c + C_TOUCHED] = 0
            m[c + C_FLOOR] = max(m[c + C_FLOOR], m[F_TIME] + 1)
            if m[c + C_STALE]:
                continue
            drains = m[c + C_DRAIN]
            _choose_queue(m, c)
            if m[c + C_DRAIN] != drains:
                m[c + C_STALE] = 1
            elif m[PROTECT_HITS]:
                m[c + C_STALE] = 1  # which rows have older hits shows only in a whole search
            elif m[c + C_REFRESHED] == m[c + C_DUE] or m[PER_BANK]:
                _search_queue(m, c, m[c + C_KEY], m[c + C_KNOWN])


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _search(m: Ints, c: int) -> None:
    """Find the next command of a channel and when it starts."""
    m[c + C_STALE] = 0
    column_at = max(m[c + C_FLOOR], m[c + C_COLUMN_BUS])
    best, age = NEVER, FAR
    first = m[c + C_OPENED_LIST]
    for o in range(first, first + m[c + C_OPENED] * OPENED_RECORD, OPENED_RECORD):
        b, command, number = m[o + O_BANK], m[o + O_COMMAND], m[o + O_NUMBER]
        if b == m[c + C_HALF]:
            continue
        start = max(m[b + command], m[m[b + B_GROUP] + command], column_at)
        start += start & m[ODD]
        if m[CLOCK_RUNS_ON] and start >= m[c + C_CLOCK]:
            start += 1
        key = start << KEY_BITS
        if key < best or (key == best and number < age):
            best, age = key, number
            m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND] = OPENED, o, command
    waits = m[c + C_REFRESHED] < m[c + C_DUE]
    if waits:
        best = _search_refresh(m, c, best)
    m[c + C_KEY] = best
    if not waits or m[PER_BANK]:
        if m[TWO_BUSES] or best > max(m[c + C_FLOOR], m[c + C_ROW_BUS]) << KEY_BITS:
            _choose_queue(m, c)
        _search_queue(m, c, best, 0)
    if m[c + C_HALF]:
        _search_half(m, c)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _search_half(m: Ints, c: int) -> None:
    """An activation's second command: when nothing else can start, or when it has to."""
    start = max(m[c + C_FLOOR], m[c + C_ROW_BUS])
    last = start >= m[c + C_HALF_BY]
    key = (start << KEY_BITS) + (0 if last else 7)
    if key < m[c + C_KEY] or (last and key == m[c + C_KEY]):
        m[c + C_KEY], m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND] = key, HALF, m[c + C_HALF], ACT2


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _choose_queue(m: Ints, c: int) -> None:
    """Writes drain once they fill their queue, or while there are no reads, until few are left."""
    reads, writes = m[c + C_READS], m[c + C_WRITES]
    if not m[c + C_DRAIN]:
        m[c + C_DRAIN] = 1 if writes > m[DRAIN_ABOVE] or reads == 0 else 0
    elif writes < m[DRAIN_BELOW] and reads > 0:
        m[c + C_DRAIN] = 0


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _search_queue(m: Ints, c: int, best: int, begin: int) -> None:
    """The oldest request, from place ``begin`` on, of those that can start before the key ``best``."""
    drain, odd, half, protect = m[c + C_DRAIN], m[ODD], m[c + C_HALF], m[PROTECT_HITS]
    column, row_rank = WR if drain else RD, 4 if m[TWO_BUSES] else 2
    column_at, row_at = max(m[c + C_FLOOR], m[c + C_COLUMN_BUS]), max(m[c + C_FLOOR], m[c + C_ROW_BUS])
    clock = m[c + C_CLOCK] if m[CLOCK_RUNS_ON] else FAR
    waits = m[PER_BANK] and m[c + C_REFRESHED] < m[c + C_DUE]
    kept = _refreshed_bank(m, c) if waits else half  # a bank that takes no command of a request
    soonest = (min(column_at, row_at) << KEY_BITS) + 2
    first, end = m[c + C_READ_LIST + drain], m[c + C_READS + drain]
    m[c + C_SEARCH] += 1
    m[c + C_KNOWN] = end
    found = -1
    for entry in range(first + begin * QUEUE_RECORD, first + end * QUEUE_RECORD, QUEUE_RECORD):
        b = m[U(entry + Q_BANK)]
        if m[U(b + B_ROW)] == m[U(entry + Q_ROW)]:
            start = max(m[U(b + column)], m[U(m[U(b + B_GROUP)] + column)], column_at)
            start += start & odd
            key = (start + (1 if start >= clock else 0) << KEY_BITS) + 2
            if protect:
                m[b + B_SEEN] = m[c + C_SEARCH]
        else:
            start, miss = max(m[U(b + B_MISS_AT)], row_at), m[U(b + B_MISS)]
            start += start & odd & (miss - 1)  # ACT is 0, PRE is 1 and starts in any tick
            key = (start << KEY_BITS) + row_rank
            if (half and miss == ACT) or (protect and miss == PRE and m[b + B_SEEN] == m[c + C_SEARCH]):
                continue
        if key < best and b != kept:
            best, found = key, entry
            if key <= soonest:
                break  # the oldest that can start at once
    if found >= 0:
        b = m[found + Q_BANK]
        m[c + C_KEY], m[c + C_FROM], m[c + C_PLACE] = best, QUEUE, found
        m[c + C_COMMAND] = column if m[b + B_ROW] == m[found + Q_ROW] else m[b + B_MISS]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _refreshed_bank(m: Ints, c: int) -> int:
    """The bank whose turn it is."""
    bank: int = m[c + C_FIRST_BANK] + m[c + C_REFRESHED] % m[BANKS] * BANK_RECORD
    return bank


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _search_refresh(m: Ints, c: int, best: int) -> int:
    """The refresh that waits, or the precharge it needs; returns its key where it comes before ``best``."""
    u = m[c + C_FIRST_UNIT] + m[c + C_REFRESHED] % m[UNITS] * UNIT_RECORD
    first, end, command = m[u + U_BANK], m[u + U_BANK_END], REF
    ready = max(m[c + C_FLOOR], m[c + C_ROW_BUS])
    if m[PER_BANK]:
        first, command = _refreshed_bank(m, c), REFPB
        end = first + BANK_RECORD
    for b in range(first, end, BANK_RECORD):
        if m[b + B_MISS_AT] == FAR:
            return best
        if m[b + B_ROW] >= 0:
            command = PRE
    for b in range(first, end, BANK_RECORD):
        g = m[b + B_GROUP]
        if command != PRE:
            ready = max(ready, m[b + ACT], m[g + ACT] if m[PER_BANK] else 0)
        elif m[b + B_ROW] >= 0:
            ready = max(ready, m[b + PRE], m[g + PRE])
    if command != PRE:
        ready += ready & m[ODD]
    key = (ready << KEY_BITS) + (3 if m[TWO_BUSES] else 1)
    if key < best:
        best = key
        m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND] = REFRESH, first, command
    return best


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _issue(m: Ints, c: int, now: int, times: Ints, commands: Ints) -> None:
    """Issue a channel's next command; what comes after it is yet to be found."""
    source, place, command = m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND]
    if source == REFRESH:
        b = place
        _refresh(m, c, b, command, now)
    elif source == HALF:
        b, m[c + C_HALF] = place, 0
        for after in (RD, WR):
            m[b + after] = max(m[b + after], now + m[m[SPANS] + ACT2])
    elif source == OPENED:
        b = m[place + O_BANK]
        _from_opened(m, c, place, now, times)
    else:
        b = m[place + Q_BANK]
        _from_queue(m, c, place, command, now, times)
    free, column = now + m[m[SPANS] + command], command in (RD, WR)
    if column or not m[TWO_BUSES]:
        m[c + C_COLUMN_BUS] = free
    if not column or not m[TWO_BUSES]:
        m[c + C_ROW_BUS] = free
    m[c + C_FLOOR], m[c + C_STALE] = now if column and m[TWO_BUSES] else now + 1, 1
    if len(commands):
        total = 0
        for which in range(7):
            total += m[N_COMMANDS + which]
        commands[total, 0], commands[total, 1] = now, command
        commands[total, 2], commands[total, 3] = (b - m[FIRST_BANK]) // BANK_RECORD, m[b + B_ROW]
    m[N_COMMANDS + command] += 1
    if m[F_BLOCKED] == CREDIT and m[F_TRY] >= FAR and m[F_HEAD] != m[F_TAIL]:
        m[F_TRY] = m[m[FLYING] + m[F_HEAD] % m[OUTSTANDING]]


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _from_opened(m: Ints, c: int, place: int, now: int, times: Ints) -> None:
    """The column command that a bank was opened for."""
    b, command, number = m[place + O_BANK], m[place + O_COMMAND], m[place + O_NUMBER]
    end = m[c + C_OPENED_LIST] + m[c + C_OPENED] * OPENED_RECORD
    for later in range(place, end - OPENED_RECORD):
        m[later] = m[later + OPENED_RECORD]
    m[c + C_OPENED] -= 1
    m[b + B_MISS_AT] = 0
    _column(m, c, b, command, number, now, times)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _from_queue(m: Ints, c: int, place: int, command: int, now: int, times: Ints) -> None:
    """The command that a queued request needs."""
    kind = m[c + C_DRAIN]
    b, row, number = m[place + Q_BANK], m[place + Q_ROW], m[place + Q_NUMBER]
    if not m[place + Q_COUNTED]:
        m[place + Q_COUNTED] = 1
        m[N_MISS if command == ACT else N_CONFLICT if command == PRE else N_HIT] += 1
    if command == PRE:
        _precharge(m, b, now, now)
        return
    m[c + C_READS + kind] -= 1
    for later in range(place, m[c + C_READ_LIST + kind] + m[c + C_READS + kind] * QUEUE_RECORD):
        m[U(later)] = m[U(later + QUEUE_RECORD)]
    if m[F_BLOCKED] == SLOT:
        m[F_TRY] = now
    if command == ACT:
        _activate(m, b, row, now)
        waiting = m[c + C_OPENED_LIST] + m[c + C_OPENED] * OPENED_RECORD
        m[waiting + O_BANK], m[waiting + O_COMMAND], m[waiting + O_NUMBER] = b, WR if kind else RD, number
        m[c + C_OPENED] += 1
        if m[HALVES_WITHIN]:
            m[c + C_HALF], m[c + C_HALF_BY] = b, now + m[HALVES_WITHIN]
    else:
        _column(m, c, b, command, number, now, times)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _activate(m: Ints, b: int, row: int, now: int) -> None:
    """Open a row; the unit's next activations keep their distance, the fifth from the first of four."""
    u, near, gaps = m[b + B_UNIT], m[b + B_GROUP] + G_NEAR, m[GAPS] + ACT * 6
    m[b + B_ROW], m[b + B_MISS], m[b + B_MISS_AT], m[b + B_USED] = row, PRE, FAR, 0
    for after in range(4):
        m[b + after] = max(m[b + after], now + m[gaps + BANK * 36 + after])
    turn = m[u + U_TURN]
    m[u + U_RING + turn] = now
    m[u + U_TURN] = (turn + 1) & 3
    window = m[u + U_RING + ((turn + 1) & 3)] + m[FAW]
    for other in range(m[u + U_BUS], m[u + U_BUS_END], m[GROUP_RECORD]):
        if m[near] != BUS:
            _delay(m, other, ACT, max(now + m[gaps + m[near] * 36 + ACT], window))
        near += 1
    if m[u + U_OPEN] == 0:
        m[u + U_SINCE] = max(m[u + U_SINCE], now)
    m[u + U_OPEN] += 1


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _delay(m: Ints, g: int, command: int, until: int) -> None:
    """No activation, or no precharge, in a bank group before a time."""
    m[g + command] = max(m[g + command], until)
    for b in range(m[g + G_BANK], m[g + G_BANK_END], BANK_RECORD):
        if m[U(b + B_MISS)] == command:
            m[U(b + B_MISS_AT)] = max(m[U(b + B_MISS_AT)], until)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _precharge(m: Ints, b: int, start: int, now: int) -> None:
    """Close a bank at ``start``, which an access that closes its row sets after ``now``."""
    u = m[b + B_UNIT]
    m[b + ACT] = max(m[b + ACT], start + m[m[GAPS] + (BANK * 6 + PRE) * 6 + ACT])
    m[b + B_ROW], m[b + B_MISS] = -1, ACT
    m[b + B_MISS_AT] = max(m[b + ACT], m[m[b + B_GROUP] + ACT])
    apart = m[m[GAPS] + (UNIT * 6 + PRE) * 6 + PRE]
    if start == now and apart:
        for other in range(m[u + U_GROUP], m[u + U_GROUP_END], m[GROUP_RECORD]):
            _delay(m, other, PRE, now + apart)
    m[u + U_OPEN] -= 1
    if m[u + U_OPEN] == 0:
        m[u + U_ACTIVE] += max(start - m[u + U_SINCE], 0)
        m[u + U_SINCE] = max(m[u + U_SINCE], start)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _column(m: Ints, c: int, b: int, command: int, number: int, now: int, times: Ints) -> None:
    """Move a burst; later column commands of its data bus keep their distance by how near they are."""
    u, near, gaps = m[b + B_UNIT], m[b + B_GROUP] + G_NEAR, m[GAPS] + command * 6
    for other in range(m[u + U_BUS], m[u + U_BUS_END], m[GROUP_RECORD]):
        gap = gaps + m[near] * 36
        m[other + RD] = max(m[other + RD], now + m[gap + RD])
        m[other + WR] = max(m[other + WR], now + m[gap + WR])
        near += 1
    m[b + PRE] = max(m[b + PRE], now + m[gaps + BANK * 36 + PRE])
    if m[b + B_MISS_AT] != FAR:
        m[b + B_MISS_AT] = max(m[b + PRE], m[m[b + B_GROUP] + PRE])
    done = now + m[READ_DONE if command == RD else WRITE_DONE]
    times[number, T_DONE] = done
    m[c + C_CLOCK] = max(m[c + C_CLOCK], done + m[CLOCK_RUNS_ON])
    m[F_SERVED] += 1
    m[F_IDLE] = 0
    if command == RD and m[OUTSTANDING]:
        m[m[FLYING] + m[F_TAIL] % m[OUTSTANDING]] = done
        m[F_TAIL] += 1
    m[b + B_USED] += 1
    if m[ROW_ACCESSES] and m[b + B_USED] >= m[ROW_ACCESSES] and m[b + B_MISS_AT] != FAR:
        _precharge(m, b, m[b + PRE], now)


@njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
def _refresh(m: Ints, c: int, first: int, command: int, now: int) -> None:
    """Refresh a unit or a bank, or close what is open in it."""
    u = m[first + B_UNIT]
    if command == PRE:
        end = first + BANK_RECORD if m[PER_BANK] else m[u + U_BANK_END]
        for b in range(first, end, BANK_RECORD):
            if m[b + B_ROW] >= 0:
                _precharge(m, b, now, now)
        return
    m[c + C_REFRESHED] += 1
    if command == REFPB:
        m[first + ACT] = max(m[first + ACT], now + m[m[GAPS] + (BANK * 6 + REFPB) * 6 + ACT])
        m[first + B_MISS_AT] = max(m[first + B_MISS_AT], m[first + ACT])
    apart = m[m[GAPS] + (UNIT * 6 + command) * 6 + ACT]
    for other in range(m[u + U_GROUP], m[u + U_GROUP_END], m[GROUP_RECORD]):
        _delay(m, other, ACT, now + apart)
