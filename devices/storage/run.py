"""The event loop of a simulated drive."""

from __future__ import annotations

from hwsim.devices.storage.collection import erased, go_on, page_moved, row_programmed
from hwsim.devices.storage.events import enter, leave, next_event, rebase, serve
from hwsim.devices.storage.flash import COMMAND, NONE, command_sent, free_tx, kick_all, let_leave, resume, wake
from hwsim.devices.storage.ftl import locate
from hwsim.devices.storage.host import (
    COMMAND_BYTES,
    POINTER,
    done,
    free_at,
    link_ticks,
    part_done,
    send_next,
)
from hwsim.devices.storage.mapping import NOBODY, learn, look_up, translated
from hwsim.devices.storage.reads import read
from hwsim.devices.storage.state import (
    HORIZON,
    SOURCE_BITS,
    STREAM_SIZE,
    Fault,
    K,
    M,
    N,
    State,
    compiled,
    entry,
    inlined,
)
from hwsim.devices.storage.things import Bl, Ch, Kind, Lun, Op, Pl, Row, Rq, Server, Source, Stage, Sv, Tx
from hwsim.devices.storage.writes import admit_waiting, trim, unstick, write


@entry
def run(s: State) -> None:
    """Serve the stream until M.STOP requests are done, or until nothing can go on (M.FAULT says why)."""
    feed(s, s[M.NOW])
    while s[M.DONE] < s[M.STOP] and not s[M.FAULT]:
        if s[M.HEAP] == 0:
            if not unstick(s):
                s[M.FAULT] = Fault.STALLED.value
            kick_all(s, s[M.NOW])
            continue
        key = next_event(s)
        time, source = s[M.BASE] + (key >> SOURCE_BITS), key & ((1 << SOURCE_BITS) - 1)
        rebase(s, time)
        s[M.NOW] = time
        s[M.EVENTS] += 1
        if source >= s[K.PLANE_SOURCE]:
            array_done(s, s[K.PLANES_AT] + (source - s[K.PLANE_SOURCE]) * Pl.SIZE, time)
        elif source >= s[K.CHANNEL_SOURCE]:
            channel_done(s, s[K.CHANNELS_AT] + (source - s[K.CHANNEL_SOURCE]) * Ch.SIZE, time)
        else:
            item = leave(s, source)
            step(s, item & 255, item >> 8, time)
        kick_all(s, time)


@compiled
def feed(s: State, time: int) -> None:
    """Send what the host may send now; in a trace, the next request waits for its time."""
    if not s[K.TRACED]:
        while send_next(s, time):
            pass
        return
    while s[M.NEXT] < s[M.STREAM] and s[M.FREE_REQUEST] != 0:
        due = s[s[K.STREAM_AT] + s[M.NEXT] * STREAM_SIZE + 3]
        if due > time:
            if s[s[K.SERVERS_AT] + Server.HOST * Sv.SIZE + Sv.COUNT] == 0:
                enter(s, Server.HOST.value, min(due, time + HORIZON), Stage.ARRIVE.value, 0)
            return
        send_next(s, time)


@inlined
def step(s: State, stage: int, request: int, time: int) -> None:
    """A request has left a server: what comes next."""
    if stage == Stage.DONE:
        done(s, request, time)
        feed(s, time)
    elif stage == Stage.DOORBELL:
        serve(s, Server.UP.value, time, link_ticks(s, POINTER), Stage.FETCH.value, request)
    elif stage == Stage.FETCH:
        serve(s, Server.DOWN.value, time, link_ticks(s, COMMAND_BYTES), Stage.COMMAND.value, request)
    elif stage == Stage.COMMAND:
        firmware(s, request, time)
    elif stage == Stage.FIRMWARE:
        delay(s, request, time)
    elif stage == Stage.READY:
        ready(s, request, time)
    elif stage == Stage.ASKED:
        nbytes = s[request + Rq.BYTES]
        serve(s, Server.DOWN.value, time, link_ticks(s, nbytes), Stage.DATA.value, request)
    elif stage == Stage.DATA:
        s[request + Rq.CURSOR] = s[request + Rq.OFFSET]
        begin(s, request, time)
    elif stage == Stage.BUFFERED:
        part_done(s, request, time)
    else:
        feed(s, time)


@inlined
def firmware(s: State, request: int, time: int) -> None:
    """The command has arrived: the core that is free first takes it."""
    reading = s[request + Rq.OP] == Op.READ
    ticks = s[K.FIRMWARE_READ] if reading else s[K.FIRMWARE_WRITE]
    if ticks == 0:
        delay(s, request, time)
        return
    best = Server.CORE.value
    for core in range(Server.CORE.value, Server.CORE.value + s[K.CORES]):
        if free_at(s, core) < free_at(s, best):
            best = core
    serve(s, best, time, ticks, Stage.FIRMWARE.value, request)


@inlined
def delay(s: State, request: int, time: int) -> None:
    """What a command waits that occupies nothing."""
    reading = s[request + Rq.OP] == Op.READ
    ticks = s[K.DELAY_READ] if reading else s[K.DELAY_WRITE]
    if ticks == 0:
        ready(s, request, time)
    elif reading:
        enter(s, Server.READ_DELAY.value, time + ticks, Stage.READY.value, request)
    else:
        enter(s, Server.WRITE_DELAY.value, time + ticks, Stage.READY.value, request)


@inlined
def ready(s: State, request: int, time: int) -> None:
    """The drive turns to the request."""
    if s[request + Rq.OP] == Op.TRIM:
        trim(s, request, time)
    elif s[request + Rq.OP] == Op.READ:
        s[request + Rq.CURSOR] = s[request + Rq.OFFSET]
        begin(s, request, time)
    else:
        serve(s, Server.UP.value, time, link_ticks(s, POINTER), Stage.ASKED.value, request)


@compiled
def begin(s: State, request: int, time: int) -> None:
    """Begin a read, or a write whose data are there, once it is known where its units lie."""
    writing = s[request + Rq.OP] == Op.WRITE
    if s[K.MAP_ENTRIES]:
        if writing and s[K.BUFFERED]:
            look_up(s, request)
        elif not translated(s, request):
            return
    if writing:
        write(s, request, time)
    else:
        read(s, request, time)


@compiled
def map_read(s: State, tx: int, time: int) -> None:
    """A page of the table is read: those that wait for it go on."""
    page = s[tx + Tx.SLOT]
    request = s[s[K.MAP_WAIT_AT] + page]
    s[s[K.MAP_WAIT_AT] + page] = 0
    while request > NOBODY:
        after = s[request + Rq.NEXT]
        s[request + Rq.NEXT] = 0
        learn(s, request, page)
        begin(s, request, time)
        request = after


@inlined
def channel_done(s: State, channel: int, time: int) -> None:
    """A command has arrived at its LUN, or a page's data at the controller."""
    tx, what = s[channel + Ch.TX], s[channel + Ch.BUSY]
    s[channel + Ch.BUSY] = NONE
    if what == COMMAND:
        command_sent(s, tx, time)
    else:
        page_out(s, tx, time)
    wake(s, channel)


@inlined
def page_out(s: State, tx: int, time: int) -> None:
    """A page's data have left its plane."""
    lun, plane, source = s[tx + Tx.LUN], s[tx + Tx.PLANE], s[tx + Tx.SOURCE]
    s[plane + Pl.OUT] -= 1
    s[lun + Lun.OUT] -= 1
    resume(s, lun, time)
    if source == Source.USER:
        request = s[tx + Tx.REQUEST]
        s[request + Rq.ERROR] |= s[tx + Tx.FAILED]
        part_done(s, request, time)
    elif source == Source.UPDATE:
        row = s[tx + Tx.ROW]
        s[s[K.ROWS_AT] + row] -= Row.READ
        wake(s, s[s[locate(s, row * s[K.ROW_SLOTS])[0] + Pl.LUN] + Lun.CHANNEL])
    elif source == Source.MAP:
        map_read(s, tx, time)
    else:
        page_moved(s, tx)
    free_tx(s, tx)


@inlined
def array_done(s: State, plane: int, time: int) -> None:
    """A plane, or all of a LUN's, has ended its work; an event of work that was interrupted means nothing."""
    if s[plane + Pl.DUE] != time:
        return
    s[plane + Pl.DUE] = -1
    lun = s[plane + Pl.LUN]
    channel = s[lun + Lun.CHANNEL]
    writing = s[lun + Lun.EXCLUSIVE]
    s[lun + Lun.EXCLUSIVE] = 0
    tx = s[lun + Lun.TX] if writing else s[plane + Pl.TX]
    while tx:
        mate = s[tx + Tx.MATE]
        if writing:
            array_written(s, tx, time)
        else:
            s[s[tx + Tx.PLANE] + Pl.BUSY] = 0
            s[lun + Lun.READING] -= 1
            s[N.READS] += 1
            let_leave(s, channel, tx)
        tx = mate
    wake(s, channel)


@compiled
def array_written(s: State, tx: int, time: int) -> None:
    """A program or an erase has ended."""
    if s[tx + Tx.KIND] == Kind.ERASE:
        erased(s, tx)
    elif s[tx + Tx.SOURCE] == Source.MAP:
        s[N.MAP_PROGRAMS] += 1
    else:
        row_programmed(s, tx)
        finish_program(s, tx, time)
    free_tx(s, tx)
    admit_waiting(s, time)


@compiled
def finish_program(s: State, tx: int, time: int) -> None:
    """Tell whoever waits for a program: a request, the write cache, a victim."""
    victim, request = s[tx + Tx.BLOCK], s[tx + Tx.REQUEST]
    if victim:
        s[victim + Bl.MOVES] -= 1
        go_on(s, victim)
    elif request:
        part_done(s, request, time)
    else:
        s[M.BUFFER] -= s[tx + Tx.COUNT]
        s[M.UNDERWAY] -= s[tx + Tx.BYTES]
