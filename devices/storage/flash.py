"""The flash back end: queues of LUNs, commands and data on channels, what planes are busy with.

A channel carries one command or one page's data at a time. Commands wait in the queues of their LUN; the channel asks
its LUNs in turn. Pages that were read wait in their plane until the channel takes them.
"""

from __future__ import annotations

from hwsim.devices.storage.events import at_rate, schedule
from hwsim.devices.storage.ftl import draw
from hwsim.devices.storage.state import MOST_PLANES, TYPES, Fault, K, M, N, State, compiled, inlined
from hwsim.devices.storage.things import Ch, Kind, Lun, Pl, Queue, Row, Source, Tx

NONE, COMMAND, DATA = 0, 1, 2
NOTHING, OTHER, BEGUN = 0, 1, 2


@inlined
def new_tx(s: State, kind: int, source: int, plane: int) -> int:
    """A transaction for a plane; what else it needs is to be filled in."""
    tx = s[M.FREE_TX]
    if tx == 0:
        s[M.FAULT] = Fault.POOL.value
        tx = s[K.TX_AT]  # one that is never queued
    else:
        s[M.FREE_TX] = s[tx + Tx.NEXT]
    for column in range(Tx.SIZE):
        s[tx + column] = 0
    s[tx + Tx.KIND] = kind
    s[tx + Tx.SOURCE] = source
    s[tx + Tx.LUN] = s[plane + Pl.LUN]
    s[tx + Tx.PLANE] = plane
    s[tx + Tx.SPAN] = 1
    s[tx + Tx.ROW] = -1
    return tx


@compiled
def free_tx(s: State, tx: int) -> None:
    """Give a transaction back."""
    s[tx + Tx.NEXT] = s[M.FREE_TX]
    s[M.FREE_TX] = tx


@compiled
def queue_of(s: State, tx: int) -> int:
    """The queue of its LUN that a transaction waits in."""
    kind, source = s[tx + Tx.KIND], s[tx + Tx.SOURCE]
    if kind == Kind.ERASE:
        return Queue.GC_ERASE.value
    if kind == Kind.READ:
        if source == Source.MAP:
            return Queue.MAP_READ.value
        return Queue.GC_READ.value if source == Source.COLLECTION else Queue.USER_READ.value
    return Queue.USER_WRITE.value if source == Source.USER else Queue.GC_WRITE.value


@compiled
def submit(s: State, tx: int) -> None:
    """Queue a transaction at its LUN; its channel turns to it when all that comes together is queued."""
    if s[M.FAULT]:
        return
    lun, queue = s[tx + Tx.LUN], queue_of(s, tx)
    if s[lun + Lun.HEADS + queue] == 0:
        s[lun + Lun.HEADS + queue] = tx
    else:
        s[s[lun + Lun.TAILS + queue] + Tx.NEXT] = tx
    s[lun + Lun.TAILS + queue] = tx
    s[lun + Lun.PENDING] += 1
    channel = s[lun + Lun.CHANNEL]
    s[channel + Ch.PENDING] += 1
    wake(s, channel)


@compiled
def unlink(s: State, lun: int, queue: int, before: int, tx: int) -> None:
    """Take ``tx``, which follows ``before`` (or nothing: 0), out of a queue."""
    after = s[tx + Tx.NEXT]
    if before == 0:
        s[lun + Lun.HEADS + queue] = after
    else:
        s[before + Tx.NEXT] = after
    if after == 0:
        s[lun + Lun.TAILS + queue] = before
    s[tx + Tx.NEXT] = 0
    s[lun + Lun.PENDING] -= 1
    s[s[lun + Lun.CHANNEL] + Ch.PENDING] -= 1


@inlined
def can_read(s: State, lun: int, plane: int) -> bool:
    """Whether a plane may begin to read: its array is idle and a register is free for the page."""
    if s[lun + Lun.EXCLUSIVE] or s[plane + Pl.BUSY]:
        return False
    if not s[K.INDEPENDENT] and s[lun + Lun.READING]:
        return False
    if s[K.CACHE_READ]:
        return s[plane + Pl.OUT] < 2
    return s[plane + Pl.OUT] == 0 if s[K.INDEPENDENT] else s[lun + Lun.OUT] == 0


@compiled
def quiet(s: State, lun: int) -> bool:
    """Whether a LUN may begin to program or erase: no plane works and no page waits in one."""
    return s[lun + Lun.EXCLUSIVE] == 0 and s[lun + Lun.READING] == 0 and s[lun + Lun.OUT] == 0


@inlined
def chosen_queue(s: State, lun: int) -> int:
    """The queue of a LUN that is served next, -1 where nothing waits.

    Reads of the map come first. Where collection goes first, a LUN with a victim serves nothing but it until the
    victim is erased; else hosts' reads, hosts' writes, collection.
    """
    heads = lun + Lun.HEADS
    if s[heads + Queue.MAP_READ]:
        return Queue.MAP_READ.value
    if not s[K.GC_FIRST] or s[lun + Lun.COLLECTING] == 0:
        if s[heads + Queue.USER_READ]:
            return Queue.USER_READ.value
        if s[heads + Queue.USER_WRITE]:
            return Queue.USER_WRITE.value
    if s[heads + Queue.GC_READ]:
        return Queue.GC_READ.value
    if s[heads + Queue.GC_WRITE]:
        return Queue.GC_WRITE.value
    return Queue.GC_ERASE.value if s[heads + Queue.GC_ERASE] else -1


@inlined
def mates(s: State, first: int, tx: int) -> bool:
    """Whether two transactions can share a command: planes of one die, pages of one number."""
    one_die = s[s[first + Tx.PLANE] + Pl.DIE] == s[s[tx + Tx.PLANE] + Pl.DIE]
    return one_die and s[first + Tx.PAGE] == s[tx + Tx.PAGE] and s[tx + Tx.SPAN] == 1


@inlined
def may_start(s: State, lun: int, tx: int) -> bool:
    """Whether a transaction could begin: a read if its plane can, a program if what it waits for is read."""
    if s[tx + Tx.KIND] == Kind.READ:
        return can_read(s, lun, s[tx + Tx.PLANE])
    return s[tx + Tx.ROW] < 0 or s[s[K.ROWS_AT] + s[tx + Tx.ROW]] < Row.READ


@inlined
def gather(s: State, lun: int, queue: int) -> int:
    """Take the first transaction of a queue that may start, with those of the die's other planes that fit to it."""
    first, before, taken = 0, 0, 0
    tx = s[lun + Lun.HEADS + queue]
    while tx:
        after, bit = s[tx + Tx.NEXT], s[s[tx + Tx.PLANE] + Pl.BIT]
        if (first == 0 or (mates(s, first, tx) and not taken & bit)) and may_start(s, lun, tx):
            unlink(s, lun, queue, before, tx)
            taken |= bit
            if first == 0:
                first = tx
            else:
                s[tx + Tx.MATE] = s[first + Tx.MATE]
                s[first + Tx.MATE] = tx
                s[first + Tx.SPAN] += 1
            if s[first + Tx.SPAN] == s[K.DIE_PLANES]:
                break
        else:
            before = tx
        tx = after
    return first


@inlined
def start(s: State, lun: int, queue: int, time: int) -> bool:
    """Send one command of a queue, if one may start: the channel carries it with the data that go in."""
    kind = s[s[lun + Lun.HEADS + queue] + Tx.KIND]
    if kind != Kind.READ and (not quiet(s, lun) or s[lun + Lun.SUSPENDED]):
        return False
    if s[lun + Lun.EXCLUSIVE] or s[lun + Lun.READING] >= (s[K.LUN_PLANES] if s[K.INDEPENDENT] else 1):
        return False
    first = gather(s, lun, queue)
    if first == 0:
        return False
    nbytes = 0
    tx = first
    while tx:
        if kind == Kind.READ:
            s[s[tx + Tx.PLANE] + Pl.BUSY] = 1
            s[s[tx + Tx.PLANE] + Pl.OUT] += 1
            s[lun + Lun.READING] += 1
            s[lun + Lun.OUT] += 1
        else:
            nbytes += s[tx + Tx.BYTES]
        tx = s[tx + Tx.MATE]
    if kind != Kind.READ:
        s[lun + Lun.EXCLUSIVE] = kind
        s[lun + Lun.ENDS] = -1
        s[lun + Lun.TX] = first
    s[N.READ_COMMANDS + kind] += 1
    ticks = s[s[K.COMMANDS_AT] + kind * MOST_PLANES + s[first + Tx.SPAN]]
    ticks *= s[K.ROW_PAGES] if kind == Kind.PROGRAM else 1
    begin(s, s[lun + Lun.CHANNEL], COMMAND, first, time, ticks + at_rate(nbytes, s[K.BUS_RATE]))
    s[s[lun + Lun.CHANNEL] + Ch.BYTES] += nbytes
    return True


@compiled
def begin(s: State, channel: int, what: int, tx: int, time: int, ticks: int) -> None:
    """Occupy a channel."""
    s[channel + Ch.BUSY] = what
    s[channel + Ch.TX] = tx
    s[channel + Ch.TICKS] += ticks
    s[channel + Ch.ENDS] = time + ticks
    schedule(s, time + ticks, s[channel + Ch.SOURCE])


@compiled
def start_data(s: State, channel: int, time: int) -> bool:
    """Let the page that waits longest leave its plane: the map's before hosts', hosts' before collected ones."""
    if s[channel + Ch.WAITING] == 0:
        return False
    place = Source.MAP.value
    if s[channel + Ch.LEAVING + Source.MAP] == 0:
        place = Source.USER.value if s[channel + Ch.LEAVING + Source.USER] else Source.COLLECTION.value
    tx = s[channel + Ch.LEAVING + place]
    s[channel + Ch.LEAVING + place] = s[tx + Tx.NEXT]
    s[channel + Ch.WAITING] -= 1
    s[channel + Ch.BYTES] += s[tx + Tx.BYTES]
    begin(s, channel, DATA, tx, time, at_rate(s[tx + Tx.BYTES], s[K.BUS_RATE]))
    return True


@compiled
def let_leave(s: State, channel: int, tx: int) -> None:
    """A page was read: its data wait for the channel."""
    source = s[tx + Tx.SOURCE]
    place = Source.USER.value if source == Source.UPDATE else source
    s[tx + Tx.NEXT] = 0
    if s[channel + Ch.LEAVING + place] == 0:
        s[channel + Ch.LEAVING + place] = tx
    else:
        s[s[channel + Ch.LAST + place] + Tx.NEXT] = tx
    s[channel + Ch.LAST + place] = tx
    s[channel + Ch.WAITING] += 1


@inlined
def wake(s: State, channel: int) -> None:
    """A channel may have work to begin."""
    s[M.KICKS] |= s[channel + Ch.BIT]
    s[M.KICKED] = channel


@inlined
def kick(s: State, channel: int, time: int) -> None:
    """Give an idle channel its next work.

    Data of reads come before all commands where the drive is built so; else commands without data come first, which
    keeps planes busy, then data that leave, then programs.
    """
    if s[channel + Ch.BUSY]:
        return
    if s[K.DATA_FIRST]:
        if not start_data(s, channel, time):
            ask_luns(s, channel, time, True, True)
        return
    found = ask_luns(s, channel, time, True, False)
    if found != BEGUN and not start_data(s, channel, time) and found == OTHER:
        ask_luns(s, channel, time, False, True)


@inlined
def kick_all(s: State, time: int) -> None:
    """Kick the channels that may have work to begin."""
    kicks, channel = s[M.KICKS], s[K.CHANNELS_AT]
    s[M.KICKS] = 0
    if kicks & (kicks - 1) == 0:  # one at most, as nearly always
        kicks, channel = min(kicks, 1), s[M.KICKED]
    while kicks:
        if kicks & 1:
            kick(s, channel, time)
        kicks >>= 1
        channel += Ch.SIZE


@compiled
def ask_luns(s: State, channel: int, time: int, short: bool, programs: bool) -> int:
    """Let the first LUN in turn that can do so begin a command; ``short`` ones have no data.

    What comes of it: `BEGUN`, `OTHER` where a LUN would rather begin one of a kind not asked for, or `NOTHING`.
    """
    turn, unseen, found = s[channel + Ch.TURN], s[channel + Ch.PENDING], NOTHING
    while unseen:
        lun = s[channel + Ch.LUN] + turn * Lun.SIZE
        turn = turn + 1 if turn + 1 < s[K.LUNS] else 0
        waiting = s[lun + Lun.PENDING]
        if waiting:
            one = start_next(s, lun, time, short, programs)
            if one == BEGUN:
                s[channel + Ch.TURN] = turn
                return BEGUN
            found |= one
            unseen -= waiting
    return found


@inlined
def start_next(s: State, lun: int, time: int, short: bool, programs: bool) -> int:
    """Begin the command that is the turn of a LUN, if it can begin now and is of the kind asked for."""
    queue = chosen_queue(s, lun)
    if queue < 0:
        return NOTHING
    writes = queue == Queue.GC_WRITE or queue == Queue.USER_WRITE
    if not (programs if writes else short):
        return OTHER
    if queue == Queue.USER_READ or queue == Queue.MAP_READ:
        if s[lun + Lun.EXCLUSIVE]:
            suspend(s, lun, time)
    elif s[lun + Lun.SUSPENDED]:
        resume(s, lun, time)
    return BEGUN if start(s, lun, queue, time) else NOTHING


@compiled
def suspend(s: State, lun: int, time: int) -> None:
    """Interrupt a program or an erase for reads, where the drive can and enough of it remains."""
    which = s[lun + Lun.EXCLUSIVE]
    if not s[K.SUSPEND] & which or s[lun + Lun.SUSPENDED] or s[lun + Lun.ENDS] < 0:
        return
    remaining = s[lun + Lun.ENDS] - time
    # An interrupted command leaves its event in the heap, where it means nothing; there is room for so many only.
    crowded = s[M.HEAP] + 2 * s[K.LUNS] * s[K.CHANNELS] >= s[K.TX_AT] - s[K.HEAP_AT]
    if remaining < s[K.SUSPEND_LEAST] or crowded:
        return
    lead = s[lun + Lun.LEAD]
    s[lun + Lun.SUSPENDED] = which
    s[lun + Lun.REMAINING] = remaining
    s[lun + Lun.STOPS] = time + s[K.SUSPEND_TICKS]
    s[lun + Lun.EXCLUSIVE] = 0
    s[lead + Pl.DUE] = -1
    s[lead + Pl.TICKS] -= remaining
    s[N.SUSPENSIONS] += 1


@compiled
def resume(s: State, lun: int, time: int) -> None:
    """Take up an interrupted command again once no read is next."""
    if s[lun + Lun.SUSPENDED] == 0 or not quiet(s, lun):
        return
    queue = chosen_queue(s, lun)
    if queue == Queue.USER_READ or queue == Queue.MAP_READ:
        return
    s[lun + Lun.EXCLUSIVE] = s[lun + Lun.SUSPENDED]
    s[lun + Lun.SUSPENDED] = 0
    work(s, lun, s[lun + Lun.LEAD], time, s[lun + Lun.REMAINING])


@compiled
def work(s: State, lun: int, plane: int, time: int, ticks: int) -> None:
    """The array behind ``plane`` works for ``ticks``."""
    s[plane + Pl.DUE] = time + ticks
    s[plane + Pl.TICKS] += ticks
    if s[lun + Lun.EXCLUSIVE]:
        s[lun + Lun.ENDS] = time + ticks
        s[lun + Lun.LEAD] = plane
    schedule(s, time + ticks, s[plane + Pl.SOURCE])


@inlined
def command_sent(s: State, tx: int, time: int) -> None:
    """The command has arrived: the array begins, once what it interrupted has come to rest."""
    lun, kind, plane = s[tx + Tx.LUN], s[tx + Tx.KIND], s[tx + Tx.PLANE]
    ticks = 0
    mate = tx
    while mate:
        one = s[s[K.ARRAY_AT] + kind * TYPES + s[s[K.PAGE_TYPE_AT] + s[mate + Tx.PAGE]]]
        if kind == Kind.READ:
            one += retries(s, mate)
        elif s[mate + Tx.SOURCE] == Source.MAP:
            s[s[K.MAP_WRITE_AT] + s[mate + Tx.SLOT]] = 0
        ticks = max(ticks, one)
        mate = s[mate + Tx.MATE]
    if kind == Kind.READ:
        ticks += max(0, s[lun + Lun.STOPS] - time)
    s[plane + Pl.TX] = tx
    work(s, lun, plane, time, ticks)


@compiled
def retries(s: State, tx: int) -> int:
    """Ticks of reading again with other thresholds; a page that stays unreadable fails."""
    if s[K.RETRY] == 0 and s[K.UNCORRECTABLE] == 0:
        return 0
    chance = draw(s)
    if chance < s[K.UNCORRECTABLE]:
        s[N.UNCORRECTABLE] += 1
        s[tx + Tx.FAILED] = 1
    elif chance < s[K.UNCORRECTABLE] + s[K.RETRY]:
        s[N.RETRIES] += 1
    else:
        return 0
    return s[K.RETRY_TICKS]
