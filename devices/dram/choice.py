"""Which command of a channel comes next, and when: first ready, first come, first served.

The earliest of all that could be issued; of those at the same time a bank that was opened comes first, then a refresh
that waits, then the oldest request of the queue in turn. All that wait for the same kind of command differ by two
numbers only, so that one pass over the banks finds the earliest and oldest, whatever is queued.
"""

from __future__ import annotations

from hwsim.devices.dram.layout import (
    ACT,
    ACT2,
    B_AWAITED,
    B_CLOSED,
    B_HIT,
    B_HIT_SLOT,
    B_MISS,
    B_MISS_SLOT,
    B_OWN_ACT,
    B_ROW,
    B_WAITS,
    BANKS,
    C_CLOCK,
    C_COLUMN_BUS,
    C_COMMAND,
    C_DRAIN,
    C_DUE,
    C_FIRST_BANK,
    C_FIRST_UNIT,
    C_FLOOR,
    C_FROM,
    C_HALF,
    C_HALF_BY,
    C_HITS,
    C_KEY,
    C_MISSES,
    C_NEW,
    C_NEW_LIST,
    C_OPENED,
    C_PLACE,
    C_READS,
    C_REFRESHED,
    C_ROW_BUS,
    C_STALE,
    C_SURE_COMMAND,
    C_SURE_NUMBER,
    C_SURE_UNTIL,
    C_WRITES,
    CLOCK_RUNS_ON,
    DRAIN_ABOVE,
    DRAIN_BELOW,
    FAR,
    HALF,
    HELD_BACK,
    KEY_BITS,
    L_BANK,
    NEVER,
    NONE,
    NUMBER_BITS,
    NUMBERS,
    ODD,
    OPENED,
    PER_BANK,
    PRE,
    PROTECT_HITS,
    Q_BANK,
    Q_ROW,
    Q_WRITE,
    QUEUE,
    RD,
    REF,
    REFPB,
    REFRESH,
    TWO_BUSES,
    U_BANK,
    U_BANK_END,
    UNIT_RECORD,
    UNITS,
    Ints,
    U,
    at,
    inlined,
)


@inlined
def search(m: Ints, bank: Ints, load: Ints, c: int) -> None:
    """Find the next command of a channel and when it starts."""
    m[c + C_STALE] = 0
    best = _search_opened(m, bank, load, c)
    waits = m[c + C_REFRESHED] < m[c + C_DUE]
    if waits:
        best = _search_refresh(m, bank, c, best)
    m[c + C_KEY] = best
    if not waits or m[PER_BANK]:
        if m[TWO_BUSES] or best > max(m[c + C_FLOOR], m[c + C_ROW_BUS]) << KEY_BITS:
            choose_queue(m, c)
        _search_queue(m, bank, load, c, best)
    if m[c + C_HALF] >= 0:
        _search_half(m, c)


@inlined
def consider_arrivals(m: Ints, bank: Ints, c: int) -> None:
    """Let what has arrived come before the channel's next command where it can start earlier."""
    if not m[c + C_STALE]:
        drains = m[c + C_DRAIN]
        choose_queue(m, c)
        if m[c + C_DRAIN] != drains or m[PROTECT_HITS]:
            m[c + C_STALE] = 1  # which rows have older hits shows only in a whole search
        elif m[c + C_REFRESHED] == m[c + C_DUE] or m[PER_BANK]:
            first = m[c + C_NEW_LIST]
            for new in range(first, first + m[c + C_NEW]):
                s = at(m[U(new)])
                if m[s + Q_WRITE] == drains:
                    _consider(m, bank, c, s)
    m[c + C_NEW] = 0


@inlined
def choose_queue(m: Ints, c: int) -> None:
    """Writes drain once they fill their queue, or while there are no reads, until few are left."""
    reads, writes = m[c + C_READS], m[c + C_WRITES]
    if not m[c + C_DRAIN]:
        m[c + C_DRAIN] = 1 if writes > m[DRAIN_ABOVE] or reads == 0 else 0
    elif writes < m[DRAIN_BELOW] and reads > 0:
        m[c + C_DRAIN] = 0


@inlined
def even(m: Ints, time: int) -> int:
    """When a command that starts on whole clocks can start."""
    clock: int = time + (time & m[ODD])
    return clock


@inlined
def _search_opened(m: Ints, bank: Ints, load: Ints, c: int) -> int:
    """The bank opened for a request that waits whose column command can start first; returns its key."""
    column_at = even(m, max(m[c + C_FLOOR], m[c + C_COLUMN_BUS]))
    if m[c + C_SURE_UNTIL] < column_at:
        _look_at_opened(m, bank, c, column_at)
    if m[c + C_SURE_UNTIL] == FAR:
        return NEVER
    m[c + C_FROM], m[c + C_COMMAND] = OPENED, m[c + C_SURE_COMMAND]
    m[c + C_PLACE] = load[U(m[c + C_SURE_NUMBER]), L_BANK]
    return _column_start(m, c, m[c + C_SURE_UNTIL]) << KEY_BITS


@inlined
def _look_at_opened(m: Ints, bank: Ints, c: int, column_at: int) -> None:
    """Keep what is found: until then, it is the first unless a column command comes, or a row is opened."""
    found = NONE
    for write in range(2):
        if m[c + C_OPENED + write]:
            first = _first(m, bank, c, RD + write, B_AWAITED + write, column_at)
            if first < found:
                found, m[c + C_SURE_COMMAND] = first, RD + write
    m[c + C_SURE_UNTIL] = FAR if found == NONE else column_at + (found >> NUMBER_BITS)
    m[c + C_SURE_NUMBER] = found & NUMBERS


@inlined
def _first(m: Ints, bank: Ints, c: int, command: int, offers: int, begin: int) -> int:
    """How long the first of offered requests waits for a command from ``begin`` on, and its number."""
    found = NONE
    for b in range(m[c + C_FIRST_BANK], m[c + C_FIRST_BANK] + m[BANKS]):
        wait = max(bank[U(command), U(b)] - begin, 0)
        found = min(found, (wait << NUMBER_BITS) + bank[U(offers), U(b)])
    return found


@inlined
def _column_start(m: Ints, c: int, start: int) -> int:
    """When a column command that may start then does: it is one later where the data clock has to start again."""
    return start + (1 if m[CLOCK_RUNS_ON] and start >= m[c + C_CLOCK] else 0)


@inlined
def _search_half(m: Ints, c: int) -> None:
    """An activation's second command: when nothing else can start, or when it has to."""
    start = max(m[c + C_FLOOR], m[c + C_ROW_BUS])
    last = start >= m[c + C_HALF_BY]
    key = (start << KEY_BITS) + (0 if last else 7)
    if key < m[c + C_KEY] or (last and key == m[c + C_KEY]):
        m[c + C_KEY], m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND] = key, HALF, m[c + C_HALF], ACT2


@inlined
def _kept(m: Ints, c: int) -> int:
    """The bank that takes no command of a request, -1: none."""
    if m[PER_BANK] and m[c + C_REFRESHED] < m[c + C_DUE]:
        return refreshed_bank(m, c)
    half: int = m[c + C_HALF]
    return half


@inlined
def _search_queue(m: Ints, bank: Ints, load: Ints, c: int, best: int) -> None:
    """The oldest request of those in the queue in turn that can start before the key ``best``."""
    drain, kept = at(m[c + C_DRAIN]), _kept(m, c)
    column_at, row_at = max(m[c + C_FLOOR], m[c + C_COLUMN_BUS]), max(m[c + C_FLOOR], m[c + C_ROW_BUS])
    if best <= (min(column_at, row_at) << KEY_BITS) + 2:
        return
    hit_kept, miss_kept = NONE, NONE
    if kept >= 0:
        hit_kept, miss_kept = bank[B_HIT + drain, kept], bank[B_MISS + drain, kept]
        bank[B_HIT + drain, kept], bank[B_MISS + drain, kept] = NONE, NONE
    row_rank = 4 if m[TWO_BUSES] else 2
    age = NONE
    if m[c + C_HITS + drain]:
        best, age = _search_hits(m, bank, load, c, even(m, column_at), best)
    if m[c + C_MISSES + drain] and (row_at << KEY_BITS) + row_rank <= best:
        late = HELD_BACK if m[c + C_HALF] >= 0 else row_at & m[ODD]
        found = _first_miss(m, bank, c, row_at, late)
        key, number = (row_at + (found >> NUMBER_BITS) << KEY_BITS) + row_rank, found & NUMBERS
        if found >> NUMBER_BITS < HELD_BACK and (key < best or (key == best and number < age < NONE)):
            b = at(load[U(number), L_BANK])
            m[c + C_KEY], m[c + C_FROM], m[c + C_PLACE] = key, QUEUE, bank[B_MISS_SLOT + drain, b]
            m[c + C_COMMAND] = ACT if bank[B_CLOSED, b] else PRE
    if kept >= 0:
        bank[B_HIT + drain, kept], bank[B_MISS + drain, kept] = hit_kept, miss_kept


@inlined
def _search_hits(m: Ints, bank: Ints, load: Ints, c: int, column_at: int, best: int) -> tuple[int, int]:
    """The request to an open row that can start first; returns the best key and, if it is that one's, its number."""
    drain = at(m[c + C_DRAIN])
    command = RD + drain
    found = _first(m, bank, c, command, B_HIT + drain, column_at)
    key, number = (_column_start(m, c, column_at + (found >> NUMBER_BITS)) << KEY_BITS) + 2, found & NUMBERS
    if found >= NONE or key >= best:
        return best, NONE
    m[c + C_KEY], m[c + C_FROM], m[c + C_COMMAND] = key, QUEUE, command
    m[c + C_PLACE] = bank[B_HIT_SLOT + drain, at(load[U(number), L_BANK])]
    return key, number


@inlined
def _first_miss(m: Ints, bank: Ints, c: int, row_at: int, late: int) -> int:
    """How long the first request to another row waits from ``row_at`` on, an ACT at least ``late``, and its number."""
    miss, found = B_MISS + m[c + C_DRAIN], NONE
    for b in range(m[c + C_FIRST_BANK], m[c + C_FIRST_BANK] + m[BANKS]):
        closed, closes = bank[U(B_CLOSED), U(b)], bank[U(PRE), U(b)]
        ready = closes ^ ((closes ^ bank[U(ACT), U(b)]) & closed)  # of PRE or ACT, without a branch
        wait = max(ready - row_at, late & closed)
        found = min(found, (wait << NUMBER_BITS) + bank[U(miss), U(b)])
    return found


@inlined
def _consider(m: Ints, bank: Ints, c: int, s: int) -> None:
    """Let a request come next if it can start before what was found."""
    b, drain = at(m[s + Q_BANK]), at(m[c + C_DRAIN])
    if b == _kept(m, c):
        return
    if bank[B_ROW, b] == m[s + Q_ROW]:
        command = RD + drain
        start = max(bank[command, b], even(m, max(m[c + C_FLOOR], m[c + C_COLUMN_BUS])))
        key = (_column_start(m, c, start) << KEY_BITS) + 2
    else:
        command = ACT if bank[B_CLOSED, b] else PRE
        if bank[B_WAITS, b] >= 0 or (command == ACT and m[c + C_HALF] >= 0):
            return
        row_at = max(m[c + C_FLOOR], m[c + C_ROW_BUS])
        start = max(bank[command, b], row_at if command == PRE else even(m, row_at))
        key = (start << KEY_BITS) + (4 if m[TWO_BUSES] else 2)
    if key < m[c + C_KEY]:
        m[c + C_KEY], m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND] = key, QUEUE, s, command


@inlined
def refreshed_bank(m: Ints, c: int) -> int:
    """The bank whose turn it is."""
    bank: int = m[c + C_FIRST_BANK] + m[c + C_REFRESHED] % m[BANKS]
    return bank


@inlined
def _search_refresh(m: Ints, bank: Ints, c: int, best: int) -> int:
    """The refresh that waits, or the precharge it needs; returns its key where it comes before ``best``."""
    u = m[c + C_FIRST_UNIT] + m[c + C_REFRESHED] % m[UNITS] * UNIT_RECORD
    first, end, command, earliest = m[u + U_BANK], m[u + U_BANK_END], REF, B_OWN_ACT
    if m[PER_BANK]:
        first = refreshed_bank(m, c)
        end, command, earliest = first + 1, REFPB, ACT
    for b in range(first, end):
        if bank[B_WAITS, b] >= 0:
            return best
        if not bank[B_CLOSED, b]:
            command, earliest = PRE, PRE
    ready = max(m[c + C_FLOOR], m[c + C_ROW_BUS])
    for b in range(first, end):
        if command != PRE or not bank[B_CLOSED, b]:
            ready = max(ready, bank[earliest, b])
    if command != PRE:
        ready = even(m, ready)
    key: int = (ready << KEY_BITS) + (3 if m[TWO_BUSES] else 1)
    if key >= best:
        return best
    m[c + C_FROM], m[c + C_PLACE], m[c + C_COMMAND] = REFRESH, first, command
    return key
