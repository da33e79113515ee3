"""Requests in the queues of a channel: each bank has a list of its reads and one of its writes, from the oldest.

Of each list the bank offers its oldest request to the open row (a hit) and its oldest to another (a miss). Offers
change only with the list, with the bank's row and with whether it was opened for a request that waits.
"""

from __future__ import annotations

from hwsim.devices.dram.layout import (
    B_AWAITED,
    B_CHANNEL,
    B_HEAD,
    B_HIT,
    B_HIT_SLOT,
    B_MISS,
    B_MISS_SLOT,
    B_ROW,
    B_TAIL,
    B_WAITS,
    B_WRITES,
    C_FREE,
    C_FREE_LIST,
    C_HITS,
    C_MISSES,
    C_NEW,
    C_NEW_LIST,
    C_OPENED,
    C_READS,
    C_SURE_UNTIL,
    L_ADDRESS,
    L_BANK,
    L_ROW,
    L_WRITE,
    NONE,
    PROTECT_HITS,
    Q_ADDRESS,
    Q_BANK,
    Q_BEFORE,
    Q_COUNTED,
    Q_NEXT,
    Q_NUMBER,
    Q_ROW,
    Q_WRITE,
    RD,
    Ints,
    at,
    inlined,
)


@inlined
def enter(m: Ints, bank: Ints, c: int, load: Ints, number: int) -> None:
    """Put a request at the end of its bank's list."""
    b, row, write = at(load[number, L_BANK]), load[number, L_ROW], at(load[number, L_WRITE])
    m[c + C_FREE] -= 1
    s = at(m[at(m[c + C_FREE_LIST] + m[c + C_FREE])])
    before = at(bank[B_TAIL + write, b])
    m[s + Q_BANK], m[s + Q_ROW], m[s + Q_NUMBER], m[s + Q_COUNTED] = b, row, number, 0
    m[s + Q_ADDRESS], m[s + Q_WRITE], m[s + Q_NEXT], m[s + Q_BEFORE] = load[number, L_ADDRESS], write, 0, before
    if before:
        m[before + Q_NEXT] = s
    else:
        bank[B_HEAD + write, b] = s
    bank[B_TAIL + write, b] = s
    m[c + C_READS + write] += 1
    m[at(m[c + C_NEW_LIST] + m[c + C_NEW])] = s
    m[c + C_NEW] += 1
    if row == bank[B_ROW, b]:
        if not bank[B_HIT_SLOT + write, b]:
            _offer_hit(m, bank, c, b, write, s)
    elif not bank[B_MISS_SLOT + write, b]:
        _offer_miss(m, bank, c, b, write, s)


@inlined
def leave(m: Ints, bank: Ints, c: int, s: int) -> None:
    """Take a request out of its bank's list; offers stay as they are."""
    b, write, before, after = at(m[s + Q_BANK]), at(m[s + Q_WRITE]), at(m[s + Q_BEFORE]), at(m[s + Q_NEXT])
    if before:
        m[before + Q_NEXT] = after
    else:
        bank[B_HEAD + write, b] = after
    if after:
        m[after + Q_BEFORE] = before
    else:
        bank[B_TAIL + write, b] = before
    m[c + C_READS + write] -= 1
    m[at(m[c + C_FREE_LIST] + m[c + C_FREE])] = s
    m[c + C_FREE] += 1


@inlined
def next_hit(m: Ints, bank: Ints, c: int, s: int) -> None:
    """The hit in a slot was served: offer the one after it."""
    b, write, after = at(m[s + Q_BANK]), at(m[s + Q_WRITE]), at(m[s + Q_NEXT])
    row = bank[B_ROW, b]
    while after and m[after + Q_ROW] != row:
        after = at(m[after + Q_NEXT])
    _offer_hit(m, bank, c, b, write, after)
    if m[PROTECT_HITS]:
        _offer_miss(m, bank, c, b, write, at(bank[B_MISS_SLOT + write, b]))


@inlined
def row_opened(m: Ints, bank: Ints, b: int) -> None:
    """Another row is open: find its hits and misses anew."""
    c, row = at(bank[B_CHANNEL, b]), bank[B_ROW, b]
    for write in range(2):
        s = at(bank[B_HEAD + write, b])
        if s:
            hit, miss = at(0), at(0)
            while s and not (hit and miss):
                if m[s + Q_ROW] == row:
                    hit = hit or s
                else:
                    miss = miss or s
                s = at(m[s + Q_NEXT])
            _offer_hit(m, bank, c, b, write, hit)
            _offer_miss(m, bank, c, b, write, miss)
        else:
            _offer_miss(m, bank, c, b, write, 0)


@inlined
def row_closed(m: Ints, bank: Ints, b: int) -> None:
    """No row is open: whatever is queued misses it."""
    c = at(bank[B_CHANNEL, b])
    for write in range(2):
        s = at(bank[B_HEAD + write, b])
        if s:
            _offer_hit(m, bank, c, b, write, 0)
            _offer_miss(m, bank, c, b, write, s)


@inlined
def await_column(m: Ints, bank: Ints, b: int) -> None:
    """A bank is open for a request, whose column command may come."""
    c, write = at(bank[B_CHANNEL, b]), at(bank[B_WRITES, b])
    m[c + C_OPENED + write] += 1
    bank[B_AWAITED + write, b] = bank[B_WAITS, b]
    if bank[RD + write, b] <= m[c + C_SURE_UNTIL]:
        m[c + C_SURE_UNTIL] = -1


@inlined
def awaited_came(m: Ints, bank: Ints, b: int) -> None:
    """The request that a bank was opened for is served: its row may be closed again."""
    c, write = at(bank[B_CHANNEL, b]), at(bank[B_WRITES, b])
    m[c + C_OPENED + write] -= 1
    bank[B_AWAITED + write, b], bank[B_WAITS, b] = NONE, -1
    for kind in range(2):
        s = at(bank[B_MISS_SLOT + kind, b])
        if s:
            _offer_miss(m, bank, c, b, kind, s)


@inlined
def _offer_hit(m: Ints, bank: Ints, c: int, b: int, write: int, s: int) -> None:
    number = m[s + Q_NUMBER] if s else NONE
    m[c + C_HITS + write] += (bank[B_HIT + write, b] == NONE) - (number == NONE)
    bank[B_HIT + write, b], bank[B_HIT_SLOT + write, b] = number, s


@inlined
def _offer_miss(m: Ints, bank: Ints, c: int, b: int, write: int, s: int) -> None:
    """None while the row is awaited; with protected hits none that is younger than a hit."""
    number = m[s + Q_NUMBER] if s and bank[B_WAITS, b] < 0 else NONE
    if m[PROTECT_HITS] and bank[B_HIT + write, b] < number:
        number = NONE
    m[c + C_MISSES + write] += (bank[B_MISS + write, b] == NONE) - (number == NONE)
    bank[B_MISS + write, b], bank[B_MISS_SLOT + write, b] = number, s
