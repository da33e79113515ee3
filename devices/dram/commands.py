"""What a command does to its bank, to those around it and to the requests in the queues."""

from __future__ import annotations

from hwsim.devices.dram.choice import even
from hwsim.devices.dram.layout import (
    ACT,
    ACT2,
    ACT_ACT,
    B_CLOSED,
    B_GROUP,
    B_OWN_ACT,
    B_OWN_PRE,
    B_ROW,
    B_UNIT,
    B_USED,
    B_WAITS,
    B_WRITES,
    BANK,
    C_CLOCK,
    C_COLUMN_BUS,
    C_COMMAND,
    C_FLOOR,
    C_FROM,
    C_HALF,
    C_HALF_BY,
    C_PLACE,
    C_REFRESHED,
    C_ROW_BUS,
    C_STALE,
    C_SURE_UNTIL,
    CLOCK_RUNS_ON,
    CREDIT,
    F_BLOCKED,
    F_HEAD,
    F_IDLE,
    F_SERVED,
    F_TAIL,
    F_TRY,
    FAR,
    FAW,
    FLYING,
    GAPS,
    GROUPS,
    HALF,
    HALVES_WITHIN,
    N_COMMANDS,
    N_CONFLICT,
    N_HIT,
    N_MISS,
    OPENED,
    OUTSTANDING,
    PER_BANK,
    PRE,
    Q_BANK,
    Q_COUNTED,
    Q_NUMBER,
    Q_ROW,
    Q_WRITE,
    RD,
    RD_RD,
    READ_DONE,
    REFPB,
    REFRESH,
    RING,
    ROW_ACCESSES,
    SLOT,
    SPANS,
    T_DONE,
    TWO_BUSES,
    U_ACTIVE,
    U_BANK,
    U_BANK_END,
    U_BUS,
    U_BUS_END,
    U_OPEN,
    U_RING,
    U_SINCE,
    U_TURN,
    UNIT,
    WR,
    WR_RD,
    WRITE_DONE,
    Ints,
    U,
    at,
    inlined,
)
from hwsim.devices.dram.queues import await_column, awaited_came, leave, next_hit, row_closed, row_opened


@inlined
def issue(m: Ints, bank: Ints, spread: Ints, c: int, now: int, times: Ints) -> int:
    """Issue a channel's next command; what comes after it is yet to be found. Returns the bank."""
    source, place, command = m[c + C_FROM], at(m[c + C_PLACE]), at(m[c + C_COMMAND])
    column = command in (RD, WR)
    if source == REFRESH:
        b = place
        _refresh(m, bank, c, b, command, now)
    elif source == HALF:
        b, m[c + C_HALF] = place, -1
        ready = even(m, now + m[m[SPANS] + ACT2])
        bank[RD, b], bank[WR, b] = max(bank[RD, b], ready), max(bank[WR, b], ready)
        await_column(m, bank, b)
    else:
        if source == OPENED:
            b = place
            number = bank[B_WAITS, b]
            awaited_came(m, bank, b)
        else:
            b, number = at(m[place + Q_BANK]), m[place + Q_NUMBER]
            _from_queue(m, bank, spread, c, place, command, now)
        if column:
            _column(m, bank, spread, c, b, command, now)
            _served(m, c, number, command, now, times)
    free = now + m[at(m[SPANS] + command)]
    if column or not m[TWO_BUSES]:
        m[c + C_COLUMN_BUS] = free
    if not column or not m[TWO_BUSES]:
        m[c + C_ROW_BUS] = free
    m[c + C_FLOOR], m[c + C_STALE] = now if column and m[TWO_BUSES] else now + 1, 1
    m[N_COMMANDS + command] += 1
    if m[F_BLOCKED] == CREDIT and m[F_TRY] >= FAR and m[F_HEAD] != m[F_TAIL]:
        m[F_TRY] = m[m[FLYING] + (m[F_HEAD] & m[RING])]
    return int(b)


@inlined
def _from_queue(m: Ints, bank: Ints, spread: Ints, c: int, s: int, command: int, now: int) -> None:
    """A queued request gets what its bank needs, and leaves the queue unless that is to close a row."""
    b = at(m[s + Q_BANK])
    if not m[s + Q_COUNTED]:
        m[s + Q_COUNTED] = 1
        m[N_MISS if command == ACT else N_CONFLICT if command == PRE else N_HIT] += 1
    if command == PRE:
        _precharge(m, bank, b, now, now)
        return
    leave(m, bank, c, s)
    if m[F_BLOCKED] == SLOT:
        m[F_TRY] = now
    if command != ACT:
        next_hit(m, bank, c, s)
        return
    bank[B_WAITS, b], bank[B_WRITES, b] = m[s + Q_NUMBER], m[s + Q_WRITE]
    _activate(m, bank, spread, b, m[s + Q_ROW], now)
    if m[HALVES_WITHIN]:
        m[c + C_HALF], m[c + C_HALF_BY] = b, now + m[HALVES_WITHIN]
    else:
        await_column(m, bank, b)


@inlined
def _activate(m: Ints, bank: Ints, spread: Ints, b: int, row: int, now: int) -> None:
    """Open a row; the unit's next activations keep their distance, the fifth from the first of four."""
    u, gaps = at(bank[B_UNIT, b]), at(m[GAPS] + (BANK * 6 + ACT) * 6)
    bank[B_ROW, b], bank[B_CLOSED, b], bank[B_USED, b] = row, 0, 0
    bank[B_OWN_ACT, b] = max(bank[B_OWN_ACT, b], now + m[gaps + ACT])
    bank[B_OWN_PRE, b] = max(bank[B_OWN_PRE, b], now + m[gaps + PRE])
    for after in range(4):
        ready = now + m[gaps + after]
        bank[after, b] = max(bank[after, b], ready if after == PRE else even(m, ready))
    turn = at(m[u + U_TURN])
    m[u + U_RING + turn] = now
    m[u + U_TURN] = (turn + 1) & 3
    window = m[u + U_RING + ((turn + 1) & 3)] + m[FAW]
    row_of, shift = ACT_ACT * m[GROUPS] + bank[B_GROUP, b], m[u + U_BUS]
    for other in range(m[u + U_BANK], m[u + U_BANK_END]):
        ready = bank[U(ACT), U(other)]
        bank[U(ACT), U(other)] = ready + max(max(now + spread[U(row_of), U(other - shift)], window) - ready, 0)
    if m[u + U_OPEN] == 0:
        m[u + U_SINCE] = max(m[u + U_SINCE], now)
    m[u + U_OPEN] += 1
    row_opened(m, bank, b)


@inlined
def _delay(m: Ints, bank: Ints, u: int, command: int, until: int) -> None:
    """No such command in a unit before a time. (A maximum itself would be stored under a mask, which takes longer.)"""
    for b in range(m[u + U_BANK], m[u + U_BANK_END]):
        ready = bank[U(command), U(b)]
        bank[U(command), U(b)] = ready + max(until - ready, 0)


@inlined
def _precharge(m: Ints, bank: Ints, b: int, start: int, now: int) -> None:
    """Close a bank at ``start``, which an access that closes its row sets after ``now``."""
    u, gaps = at(bank[B_UNIT, b]), at(m[GAPS] + PRE * 6)
    ready = even(m, start + m[gaps + BANK * 36 + ACT])
    bank[B_OWN_ACT, b], bank[ACT, b] = max(bank[B_OWN_ACT, b], ready), max(bank[ACT, b], ready)
    bank[B_ROW, b], bank[B_CLOSED, b] = -1, -1
    apart = m[gaps + UNIT * 36 + PRE]
    if start == now and apart:
        _delay(m, bank, u, PRE, now + apart)
    m[u + U_OPEN] -= 1
    if m[u + U_OPEN] == 0:
        m[u + U_ACTIVE] += max(start - m[u + U_SINCE], 0)
        m[u + U_SINCE] = max(m[u + U_SINCE], start)
    row_closed(m, bank, b)


@inlined
def _column(m: Ints, bank: Ints, spread: Ints, c: int, b: int, command: int, now: int) -> None:
    """Move a burst; later column commands of its data bus keep their distance by how near they are."""
    u, groups = at(bank[B_UNIT, b]), m[GROUPS]
    row_of = (RD_RD if command == RD else WR_RD) * groups + bank[B_GROUP, b]
    first = m[u + U_BUS]
    for other in range(m[u + U_BUS_END] - first):
        ready = bank[U(RD), U(first + other)]
        bank[U(RD), U(first + other)] = ready + max(now + spread[U(row_of), U(other)] - ready, 0)
    for other in range(m[u + U_BUS_END] - first):
        ready = bank[U(WR), U(first + other)]
        bank[U(WR), U(first + other)] = ready + max(now + spread[U(row_of + groups), U(other)] - ready, 0)
    m[c + C_SURE_UNTIL] = -1
    closes = now + m[at(m[GAPS] + (BANK * 6 + command) * 6 + PRE)]
    bank[B_OWN_PRE, b], bank[PRE, b] = max(bank[B_OWN_PRE, b], closes), max(bank[PRE, b], closes)
    bank[B_USED, b] += 1
    if m[ROW_ACCESSES] and bank[B_USED, b] >= m[ROW_ACCESSES] and bank[B_WAITS, b] < 0:
        _precharge(m, bank, b, bank[B_OWN_PRE, b], now)


@inlined
def _served(m: Ints, c: int, number: int, command: int, now: int, times: Ints) -> None:
    """When a burst's data are over."""
    done = now + m[READ_DONE if command == RD else WRITE_DONE]
    times[U(number), T_DONE] = done
    m[c + C_CLOCK] = max(m[c + C_CLOCK], done + m[CLOCK_RUNS_ON])
    m[F_SERVED] += 1
    m[F_IDLE] = 0
    if command == RD and m[OUTSTANDING]:
        m[m[FLYING] + (m[F_TAIL] & m[RING])] = done
        m[F_TAIL] += 1


@inlined
def _refresh(m: Ints, bank: Ints, c: int, first: int, command: int, now: int) -> None:
    """Refresh a unit or a bank, or close what is open in it."""
    u = at(bank[B_UNIT, first])
    if command == PRE:
        for b in range(first, first + 1 if m[PER_BANK] else m[u + U_BANK_END]):
            if not bank[B_CLOSED, b]:
                _precharge(m, bank, b, now, now)
        return
    m[c + C_REFRESHED] += 1
    if command == REFPB:
        ready = even(m, now + m[m[GAPS] + (BANK * 6 + REFPB) * 6 + ACT])
        bank[B_OWN_ACT, first], bank[ACT, first] = max(bank[B_OWN_ACT, first], ready), max(bank[ACT, first], ready)
    _delay(m, bank, u, ACT, even(m, now + m[m[GAPS] + (UNIT * 6 + command) * 6 + ACT]))
