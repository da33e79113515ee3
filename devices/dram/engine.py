"""The command-level simulation of DRAM channels, from event to event, as compiled code.

Each channel has a read and a write queue, banks that were opened for a request which waits, and a refresh that falls
due every tREFI. Of all commands that these could issue next the earliest is issued (`hwsim.devices.dram.choice`).
Between two commands nothing happens, so time leaps. Where rows and columns have a command bus each, one of each can
start in a tick, the column's first.

A request leaves its queue with the activation made for it; the bank then waits for its column command, and no other
request may close it before. Requests that arrive in a tick can start in the next.
"""

from __future__ import annotations

from hwsim.compiled import compiled
from hwsim.devices.dram.choice import consider_arrivals, search
from hwsim.devices.dram.commands import issue
from hwsim.devices.dram.layout import (
    B_CHANNEL,
    B_HEAD,
    B_ROW,
    C_COMMAND,
    C_DUE,
    C_FLOOR,
    C_KEY,
    C_NEW,
    C_READS,
    C_REFRESH,
    C_STALE,
    CHANNEL_RECORD,
    CHANNELS,
    CREDIT,
    F_BLOCKED,
    F_FLYING,
    F_HEAD,
    F_IDLE,
    F_NEXT,
    F_SERVED,
    F_TAIL,
    F_TIME,
    F_TRY,
    FAR,
    FIRST_CHANNEL,
    FLYING,
    FORWARDING,
    FREE,
    INTERVAL,
    KEY_BITS,
    L_ADDRESS,
    L_BANK,
    L_WRITE,
    N_COMMANDS,
    N_FORWARDED,
    N_HIT,
    N_MERGED,
    OUTSTANDING,
    PACE,
    PER_BANK,
    Q_ADDRESS,
    Q_NEXT,
    READ_QUEUE,
    REFRESH_EVERY,
    RING,
    SLOT,
    SUBTICKS,
    T_ARRIVED,
    T_DONE,
    UNITS,
    Ints,
    at,
    inlined,
    views,
)
from hwsim.devices.dram.queues import enter

STUCK_AFTER = 10_000  # refreshes without a request served


@inlined
def _soonest(m: Ints) -> tuple[int, int]:
    """The next event of a channel and that channel."""
    first, soonest = m[FIRST_CHANNEL], FAR
    found = first
    for channel in range(first, first + m[CHANNELS] * CHANNEL_RECORD, CHANNEL_RECORD):
        c = at(channel)
        event = m[c + C_FLOOR] if m[c + C_STALE] else m[c + C_KEY] >> KEY_BITS
        event = min(event, m[c + C_REFRESH])
        if event < soonest:
            soonest, found = event, c
    return soonest, at(found)


@inlined
def _refresh_due(m: Ints, c: int) -> None:
    m[c + C_FLOOR] = max(m[c + C_FLOOR], m[c + C_REFRESH])
    m[c + C_REFRESH] += m[REFRESH_EVERY]
    m[c + C_DUE] += 1 if m[PER_BANK] else m[UNITS]
    m[F_IDLE] += 1
    m[c + C_STALE] = 1


@inlined
def _admit(m: Ints, bank: Ints, load: Ints, times: Ints) -> None:
    """Take requests in their order until one has to wait; say for what and until when."""
    now = m[F_TIME]
    while m[F_HEAD] != m[F_TAIL] and m[m[FLYING] + (m[F_HEAD] & m[RING])] <= now:
        m[F_HEAD] += 1
        m[F_FLYING] -= 1
    while True:
        m[F_TRY], m[F_BLOCKED] = FAR, FREE
        number = at(m[F_NEXT])
        if number == len(load):
            return
        wanted = (number * m[INTERVAL]) >> SUBTICKS
        if wanted > now:
            m[F_TRY], m[F_BLOCKED] = wanted, PACE
            return
        b, write = at(load[number, L_BANK]), at(load[number, L_WRITE])
        c = at(bank[B_CHANNEL, b])
        if m[OUTSTANDING] and not write and m[F_FLYING] >= m[OUTSTANDING]:
            m[F_BLOCKED] = CREDIT
            if m[F_HEAD] != m[F_TAIL]:
                m[F_TRY] = m[m[FLYING] + (m[F_HEAD] & m[RING])]
            return
        if not (m[FORWARDING] and bank[B_HEAD + 1, b] and _answered(m, bank, load, number, times)):
            if m[c + C_READS + write] >= m[READ_QUEUE + write]:
                m[F_BLOCKED] = SLOT
                return
            enter(m, bank, c, load, number)
            if not write and m[OUTSTANDING]:
                m[F_FLYING] += 1
        times[number, T_ARRIVED] = wanted if m[INTERVAL] else now
        m[F_NEXT] += 1


@inlined
def _answered(m: Ints, bank: Ints, load: Ints, number: int, times: Ints) -> bool:
    """A request to an address whose write is queued: a read takes its data from there, a write replaces it."""
    address = load[number, L_ADDRESS]
    s = at(bank[B_HEAD + 1, at(load[number, L_BANK])])
    while s:
        if m[s + Q_ADDRESS] == address:
            m[N_MERGED if load[number, L_WRITE] else N_FORWARDED] += 1
            m[F_SERVED] += 1
            times[number, T_DONE] = m[F_TIME] + 1
            return True
        s = at(m[s + Q_NEXT])
    return False


@inlined
def _consider_arrivals(m: Ints, bank: Ints) -> None:
    """In all channels in which something has arrived."""
    first = m[FIRST_CHANNEL]
    for channel in range(first, first + m[CHANNELS] * CHANNEL_RECORD, CHANNEL_RECORD):
        c = at(channel)
        if m[c + C_NEW]:
            m[c + C_FLOOR] = max(m[c + C_FLOOR], m[F_TIME] + 1)
            consider_arrivals(m, bank, c)


@inlined
def _note(m: Ints, bank: Ints, commands: Ints, now: int, command: int, b: int) -> None:
    """Keep a command that was issued."""
    issued = -1
    for which in range(N_COMMANDS, N_HIT):
        issued += m[which]
    commands[issued, 0], commands[issued, 1], commands[issued, 2] = now, command, b
    commands[issued, 3] = bank[B_ROW, b]


@inlined
def _until(m: Ints, bank: Ints, spread: Ints, load: Ints, times: Ints, commands: Ints, goal: int) -> bool:
    """See `run`."""
    while m[F_SERVED] < goal:
        soonest, c = _soonest(m)
        if m[F_TRY] < soonest:
            m[F_TIME] = max(m[F_TRY], m[F_TIME])
            _admit(m, bank, load, times)
            _consider_arrivals(m, bank)
        elif soonest >= FAR or m[F_IDLE] > STUCK_AFTER:
            return False
        elif m[c + C_REFRESH] <= soonest:
            _refresh_due(m, c)
        elif m[c + C_STALE]:
            search(m, bank, load, c)
        else:
            m[F_TIME] = soonest
            command = m[c + C_COMMAND]
            b = issue(m, bank, spread, c, soonest, times)
            if len(commands):
                _note(m, bank, commands, soonest, command, b)
    return True


def run(m: Ints, load: Ints, times: Ints, commands: Ints, goal: int) -> bool:
    """Simulate until ``goal`` bursts are served; False where nothing can happen any more."""
    bank, spread = views(m)
    reached: bool = _until(m, bank, spread, load, times, commands, goal)
    return reached


run = compiled(run, "numpy")
