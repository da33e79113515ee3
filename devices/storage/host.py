"""From the host's queue to the flash and back: links, firmware, the write cache, what requests become."""

from __future__ import annotations

from hwsim.devices.storage.collection import collect_if_short, program_row
from hwsim.devices.storage.events import at_rate, enter, occupy, serve
from hwsim.devices.storage.flash import new_tx, submit
from hwsim.devices.storage.ftl import (
    USER,
    advance,
    bind,
    block_of,
    ends_block,
    ends_row,
    forget,
    home,
    page_of,
    plane_of,
    skip_row,
    slot_of,
    take_slot,
)
from hwsim.devices.storage.state import (
    SECTOR,
    STREAM_SIZE,
    Bl,
    Gr,
    K,
    Kind,
    Log,
    M,
    N,
    Op,
    Row,
    Rq,
    Server,
    Source,
    Stage,
    State,
    Sv,
    Tx,
    compiled,
)

DOORBELL, POINTER, COMPLETION, COMMAND_BYTES = 2, 4, 16, 64
"""Bytes of messages: a doorbell, the request for data, a completion, a command (NVM Express base specification)."""


@compiled
def link_ticks(s: State, nbytes: int) -> int:
    """Time of a message on the link, with the overhead of each of its packets."""
    packets = (nbytes + s[K.PAYLOAD] - 1) // s[K.PAYLOAD]
    return at_rate(nbytes + packets * s[K.OVERHEAD], s[K.LINK_RATE])


@compiled
def dram_ticks(s: State, nbytes: int) -> int:
    """Time of an access to the drive's memory; with DRAM_ROW, larger ones take half the time per row, as in MQSim."""
    row, latency, rate = s[K.DRAM_ROW], s[K.DRAM_LATENCY], s[K.DRAM_RATE]
    if row == 0 or nbytes <= row:
        return latency + at_rate(nbytes, rate)
    rows = (at_rate(row, rate) + s[K.DRAM_PRECHARGE]) * (nbytes // row // 2)
    return 2 * latency + rows + at_rate(nbytes % row, rate)


@compiled
def send_next(s: State, time: int) -> bool:
    """Put the next request of the stream into a free place of the queue; False where there is none."""
    request = s[M.FREE_REQUEST]
    if s[M.NEXT] >= s[M.STREAM] or request == 0:
        return False
    source = s[K.STREAM_AT] + s[M.NEXT] * STREAM_SIZE
    s[M.NEXT] += 1
    s[M.FREE_REQUEST] = s[request + Rq.NEXT]
    s[M.IN_FLIGHT] += 1
    s[request + Rq.NEXT] = 0
    s[request + Rq.OP] = s[source]
    s[request + Rq.OFFSET] = s[source + 1]
    s[request + Rq.BYTES] = s[source + 2]
    s[request + Rq.ARRIVED] = s[source + 3] if s[K.TRACED] else time
    s[request + Rq.SENT] = time
    s[request + Rq.LEFT] = 0
    s[request + Rq.ERROR] = 0
    serve(s, Server.DOWN.value, time, link_ticks(s, DOORBELL), Stage.DOORBELL.value, request)
    return True


@compiled
def complete(s: State, request: int, time: int) -> None:
    """The drive is done: read data and the completion go to the host."""
    ticks = link_ticks(s, COMPLETION)
    if s[request + Rq.OP] == Op.READ:
        ticks += link_ticks(s, s[request + Rq.BYTES])
    serve(s, Server.UP.value, time, ticks, Stage.DONE.value, request)


@compiled
def done(s: State, request: int, time: int) -> None:
    """The host has the completion; its place in the queue is free for the next request."""
    log = s[K.LOG_AT] + s[M.DONE] * Log.SIZE
    s[log + Log.OP] = s[request + Rq.OP] | (s[request + Rq.ERROR] << 8)
    s[log + Log.ARRIVED] = s[request + Rq.ARRIVED]
    s[log + Log.SENT] = s[request + Rq.SENT]
    s[log + Log.DONE] = time
    s[log + Log.BYTES] = s[request + Rq.BYTES]
    s[M.DONE] += 1
    s[M.IN_FLIGHT] -= 1
    s[request + Rq.NEXT] = s[M.FREE_REQUEST]
    s[M.FREE_REQUEST] = request
    occupy(s, Server.DOWN.value, time, link_ticks(s, DOORBELL))


@compiled
def part_done(s: State, request: int, time: int) -> None:
    """One of the parts of a request is done."""
    s[request + Rq.LEFT] -= 1
    if s[request + Rq.LEFT] == 0:
        complete(s, request, time)


@compiled
def granules(s: State, nbytes: int) -> int:
    """Bytes that leave a page for ``nbytes`` of it: whole granules of the error correction."""
    return (nbytes + s[K.GRANULE] - 1) // s[K.GRANULE] * s[K.GRANULE]


@compiled
def sector_mask(start: int, nbytes: int) -> int:
    """The bits of the sectors that bytes of a mapping unit touch."""
    first, last = start // SECTOR, (start + nbytes + SECTOR - 1) // SECTOR
    return ((1 << (last - first)) - 1) << first if last - first < 63 else -1 << first


@compiled
def read(s: State, request: int, time: int) -> None:
    """Break a read into pages; what lies in the write cache, or nowhere, needs no flash."""
    unit = s[K.SLOT_BYTES]
    offset, end = s[request + Rq.OFFSET], s[request + Rq.OFFSET] + s[request + Rq.BYTES]
    s[request + Rq.LEFT] = 1  # until all parts are known
    from_buffer, tx = 0, 0
    while offset < end:
        lpn = offset // unit
        nbytes = min(end, (lpn + 1) * unit) - offset
        slot = slot_of(s, lpn)
        if slot < 0 and s[K.UNWRITTEN]:
            slot = first_touch(s, lpn, offset - lpn * unit, nbytes)
        if slot >= 0:
            if s[K.MAPPED] and s[s[K.ROWS_AT] + slot // s[K.ROW_SLOTS] * Row.SIZE + Row.BUFFERED]:
                from_buffer += nbytes
            elif tx and slot // s[K.PAGE_SLOTS] == s[tx + Tx.SLOT] // s[K.PAGE_SLOTS]:
                s[tx + Tx.BYTES] += granules(s, nbytes)
            else:
                tx = read_page(s, request, slot, granules(s, nbytes), Source.USER.value)
                s[request + Rq.LEFT] += 1
        offset += nbytes
    if from_buffer:
        s[N.BUFFER_HITS] += 1
        s[N.DRAM_BYTES] += from_buffer
        s[request + Rq.LEFT] += 1
        serve(s, Server.DRAM.value, time, dram_ticks(s, from_buffer), Stage.FROM_BUFFER.value, request)
    part_done(s, request, time)


@compiled
def read_page(s: State, request: int, slot: int, nbytes: int, source: int) -> int:
    """Queue the read of a page."""
    tx = new_tx(s, Kind.READ.value, source, plane_of(s, slot))
    s[tx + Tx.PAGE] = page_of(s, slot)
    s[tx + Tx.SLOT] = slot
    s[tx + Tx.BYTES] = nbytes
    s[tx + Tx.REQUEST] = request
    submit(s, tx)
    return tx


@compiled
def first_touch(s: State, lpn: int, start: int, nbytes: int) -> int:
    """The slot that a unit gets as it is read before it was ever written, -1 without room."""
    group = home(s, lpn)
    slot = take_slot(s, group, USER) if group else -1
    if slot < 0:
        return -1
    if ends_row(s, slot):
        s[block_of(s, slot) + Bl.PENDING] -= 1
    bind(s, lpn, slot)
    if s[K.PARTIAL]:
        s[s[K.SECTORS_AT] + lpn] = sector_mask(start, nbytes)
    if ends_block(s, slot):
        collect_if_short(s, group)
    return slot


@compiled
def write(s: State, request: int, time: int) -> None:
    """The data of a write have arrived: place them, or wait behind those that wait for room."""
    s[request + Rq.CURSOR] = s[request + Rq.OFFSET]
    s[request + Rq.LEFT] = 1
    if s[M.WAIT_HEAD] == 0 and admit(s, request, time):
        return
    if s[M.WAIT_HEAD] == 0:
        s[M.WAIT_HEAD] = request
    else:
        s[s[M.WAIT_TAIL] + Rq.NEXT] = request
    s[M.WAIT_TAIL] = request


@compiled
def admit_waiting(s: State, time: int) -> None:
    """There is more room: place the writes that wait for it, in order."""
    while s[M.WAIT_HEAD]:
        request = s[M.WAIT_HEAD]
        if not admit(s, request, time):
            return
        s[M.WAIT_HEAD] = s[request + Rq.NEXT]
        s[request + Rq.NEXT] = 0


@compiled
def admit(s: State, request: int, time: int) -> bool:
    """Place as much of a write as there is room for; True once all of it has its place."""
    unit = s[K.SLOT_BYTES]
    end = s[request + Rq.OFFSET] + s[request + Rq.BYTES]
    while s[request + Rq.CURSOR] < end:
        offset = s[request + Rq.CURSOR]
        lpn = offset // unit
        nbytes = min(end, (lpn + 1) * unit) - offset
        group = home(s, lpn)
        if group == 0 or s[M.FAULT] or not has_room(s):
            return False
        place(s, request, group, lpn, nbytes)
        s[request + Rq.CURSOR] = offset + nbytes
        if not s[K.BUFFERED] and (offset + nbytes == end or home(s, lpn + 1) != group):
            close_row(s, group, request)
    if s[K.BUFFERED]:
        nbytes = s[request + Rq.BYTES]
        s[N.DRAM_BYTES] += nbytes
        serve(s, Server.DRAM.value, time, dram_ticks(s, nbytes), Stage.BUFFERED.value, request)
    else:
        part_done(s, request, time)
    return True


@compiled
def has_room(s: State) -> bool:
    """Whether the write cache takes another unit."""
    return not s[K.BUFFERED] or (s[M.BUFFER] < s[K.BUFFER] and s[M.UNDERWAY] < s[K.UNDERWAY])


@compiled
def place(s: State, request: int, group: int, lpn: int, nbytes: int) -> None:
    """Give a unit that is written its slot."""
    old = s[s[K.L2P_AT] + lpn] - 1
    start = s[request + Rq.CURSOR] - lpn * s[K.SLOT_BYTES]
    if s[K.BUFFERED] and old >= 0 and in_open_row(s, group, old):
        s[N.REWRITTEN] += 1
        if s[K.PARTIAL]:
            s[s[K.SECTORS_AT] + lpn] |= sector_mask(start, nbytes)
        return
    slot = take_slot(s, group, USER)
    row = s[K.ROWS_AT] + slot // s[K.ROW_SLOTS] * Row.SIZE
    if s[K.PARTIAL]:
        update(s, lpn, old, slot, sector_mask(start, nbytes))
    bind(s, lpn, slot)
    s[N.HOST_SLOTS] += 1
    s[group + Gr.ROW_BYTES] += granules(s, nbytes)
    if s[K.BUFFERED]:
        s[row + Row.BUFFERED] = 1
        s[M.BUFFER] += 1
        s[M.UNDERWAY] += granules(s, nbytes)
    if ends_row(s, slot):
        send_row(s, group, slot, s[K.ROW_SLOTS], request)
    if ends_block(s, slot):
        collect_if_short(s, group)


@compiled
def in_open_row(s: State, group: int, slot: int) -> bool:
    """Whether a slot lies in the row that a group has begun and not yet programmed, so that it is replaced there."""
    block, used = s[group + USER], s[group + USER + 1]
    begun = block != 0 and used % s[K.ROW_SLOTS] != 0
    return begun and slot // s[K.ROW_SLOTS] == (s[block + Bl.SLOT] + used) // s[K.ROW_SLOTS]


@compiled
def update(s: State, lpn: int, old: int, slot: int, written: int) -> None:
    """Read the rest of a unit that is written in part; the program of its row waits for it."""
    before = s[s[K.SECTORS_AT] + lpn] if old >= 0 else 0
    s[s[K.SECTORS_AT] + lpn] = before | written
    rest = before & ~written
    if rest == 0 or s[s[K.ROWS_AT] + old // s[K.ROW_SLOTS] * Row.SIZE + Row.BUFFERED]:
        return
    sectors = 0
    while rest:
        rest &= rest - 1
        sectors += 1
    tx = read_page(s, 0, old, granules(s, sectors * SECTOR), Source.UPDATE.value)
    s[tx + Tx.ROW] = slot // s[K.ROW_SLOTS]
    s[s[K.ROWS_AT] + s[tx + Tx.ROW] * Row.SIZE + Row.READS] += 1
    s[N.UPDATE_READS] += 1


@compiled
def send_row(s: State, group: int, slot: int, filled: int, request: int) -> None:
    """Queue the program of a row of the host's data."""
    if not s[K.BUFFERED]:
        s[request + Rq.LEFT] += 1
    tx = program_row(s, slot, filled, 0 if s[K.BUFFERED] else request, Source.USER.value, 0)
    s[tx + Tx.BYTES] = s[group + Gr.ROW_BYTES]
    s[group + Gr.ROW_BYTES] = 0
    if not s[K.STATIC]:
        advance(s)


@compiled
def close_row(s: State, group: int, request: int) -> None:
    """Program a row that is not full; the rest of it stays empty."""
    block, used = s[group + USER], s[group + USER + 1]
    filled = used % s[K.ROW_SLOTS]
    if filled:
        skip_row(s, group, USER)
        send_row(s, group, s[block + Bl.SLOT] + used - 1, filled, request)


@compiled
def trim(s: State, request: int, time: int) -> None:
    """Forget all units that lie wholly within the request."""
    unit = s[K.SLOT_BYTES]
    first = (s[request + Rq.OFFSET] + unit - 1) // unit
    for lpn in range(first, (s[request + Rq.OFFSET] + s[request + Rq.BYTES]) // unit):
        if s[s[K.L2P_AT] + lpn]:
            forget(s, lpn)
            s[N.TRIMMED] += 1
    complete(s, request, time)


@compiled
def free_at(s: State, server: int) -> int:
    """When a server has nothing more to do."""
    return s[s[K.SERVERS_AT] + server * Sv.SIZE + Sv.FREE_AT]


@compiled
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


@compiled
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


@compiled
def ready(s: State, request: int, time: int) -> None:
    """The drive turns to the request."""
    op = s[request + Rq.OP]
    if op == Op.READ:
        read(s, request, time)
    elif op == Op.TRIM:
        trim(s, request, time)
    else:
        serve(s, Server.UP.value, time, link_ticks(s, POINTER), Stage.ASKED.value, request)
