"""What writes become: units in the write cache, rows of the flash; and what trims undo."""

from __future__ import annotations

from hwsim.devices.storage.collection import collect, collect_if_short
from hwsim.devices.storage.events import serve
from hwsim.devices.storage.ftl import USER, bind, ends_block, ends_row, forget, home, skip_row, take_slot
from hwsim.devices.storage.host import complete, dram_ticks, part_done
from hwsim.devices.storage.kept import drop, hot, keep, oldest
from hwsim.devices.storage.reads import granules, read_page, sector_mask
from hwsim.devices.storage.rows import send_row
from hwsim.devices.storage.state import SECTOR, K, M, N, State, compiled
from hwsim.devices.storage.things import Bl, Entry, Gr, Row, Rq, Server, Source, Stage, Tx


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
    begun, end = s[request + Rq.CURSOR], s[request + Rq.OFFSET] + s[request + Rq.BYTES]
    while s[request + Rq.CURSOR] < end:
        offset = s[request + Rq.CURSOR]
        lpn = offset // unit
        nbytes = min(end, (lpn + 1) * unit) - offset
        if not admit_unit(s, request, lpn, nbytes, time):
            break
        s[request + Rq.CURSOR] = offset + nbytes
    if s[K.BUFFERED] and s[request + Rq.CURSOR] > begun:
        nbytes = s[request + Rq.CURSOR] - begun
        s[N.DRAM_BYTES] += nbytes
        s[request + Rq.LEFT] += 1
        serve(s, Server.DRAM.value, time, dram_ticks(s, nbytes), Stage.BUFFERED.value, request)
    if s[request + Rq.CURSOR] < end:
        return False
    part_done(s, request, time)
    return True


@compiled
def admit_unit(s: State, request: int, lpn: int, nbytes: int, time: int) -> bool:
    """Place one unit of a write, in the write cache or in the flash; False where there is no room."""
    sectors = sector_mask(s[request + Rq.CURSOR] - lpn * s[K.SLOT_BYTES], nbytes)
    if s[K.KEEP] and hot(s, lpn, time):
        held = keep(s, lpn, sectors) or (write_back(s) and keep(s, lpn, sectors))
        s[N.REWRITTEN] += held
        return held
    group = home(s, lpn)
    if group == 0 or s[M.FAULT]:
        return False
    if s[K.BUFFERED]:
        if s[M.UNDERWAY] >= s[K.UNDERWAY] or (s[M.BUFFER] >= s[K.BUFFER] and not write_back(s)):
            return False
        if s[K.KEEP]:
            s[s[K.SEEN_AT] + lpn] = s[M.EPOCH]
    put(s, request, group, lpn, sectors, nbytes)
    if not s[K.BUFFERED]:
        end = s[request + Rq.OFFSET] + s[request + Rq.BYTES]
        if s[request + Rq.CURSOR] + nbytes == end or home(s, lpn + 1) != group:
            close_row(s, group, request)
    return True


@compiled
def write_back(s: State) -> bool:
    """Program what was kept in the write cache for longest; False where nothing is, or its group has no room."""
    entry = oldest(s) if s[K.KEEP] else 0
    if entry == 0:
        return False
    lpn, sectors = s[entry + Entry.KEY], s[entry + Entry.SECTORS]
    group = home(s, lpn)
    if group == 0:
        return False
    drop(s, entry)
    put(s, 0, group, lpn, sectors, bits(sectors) * SECTOR)
    return True


@compiled
def bits(mask: int) -> int:
    """How many bits are set."""
    count = 0
    while mask:
        mask &= mask - 1
        count += 1
    return count


@compiled
def put(s: State, request: int, group: int, lpn: int, sectors: int, nbytes: int) -> None:
    """Give a unit that is written its slot; one that waits in the group's open row is replaced there."""
    old = s[s[K.L2P_AT] + lpn] - 1
    if s[K.BUFFERED] and old >= 0 and in_open_row(s, group, old):
        s[N.REWRITTEN] += 1
        if s[K.PARTIAL]:
            s[s[K.SECTORS_AT] + lpn] |= sectors
        return
    slot = take_slot(s, group, USER)
    if s[K.PARTIAL]:
        update(s, lpn, old, slot, sectors)
    bind(s, lpn, slot)
    s[N.HOST_SLOTS] += 1
    s[group + Gr.ROW_BYTES] += granules(s, nbytes)
    if s[K.BUFFERED]:
        s[s[K.ROWS_AT] + slot // s[K.ROW_SLOTS]] |= Row.BUFFERED
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
    if rest == 0 or s[s[K.ROWS_AT] + old // s[K.ROW_SLOTS]] & Row.BUFFERED:
        return
    tx = read_page(s, 0, old, granules(s, bits(rest) * SECTOR), Source.UPDATE.value)
    s[tx + Tx.ROW] = slot // s[K.ROW_SLOTS]
    s[s[K.ROWS_AT] + s[tx + Tx.ROW]] += Row.READ
    s[N.UPDATE_READS] += 1


@compiled
def close_row(s: State, group: int, request: int) -> None:
    """Program a row that is not full; the rest of it stays empty."""
    block, used = s[group + USER], s[group + USER + 1]
    filled = used % s[K.ROW_SLOTS]
    if filled:
        skip_row(s, group, USER)
        if s[group + USER] != block:
            collect_if_short(s, group)
        send_row(s, group, s[block + Bl.SLOT] + used - 1, filled, request)


@compiled
def unstick(s: State) -> bool:
    """Nothing is under way and writes wait: pad the rows that hold up the write cache, collect what may be by now.

    False where neither is of use.
    """
    moved = False
    if s[M.WAIT_HEAD]:
        for number in range(s[K.GROUPS]):
            group = s[K.GROUPS_AT] + number * Gr.SIZE
            if s[K.BUFFERED] and s[group + USER + 1] % s[K.ROW_SLOTS] != 0:
                close_row(s, group, 0)
                moved = True
            if s[group + Gr.FREE] < s[K.GC_START] and s[group + Gr.VICTIMS] == 0:
                moved |= collect(s, group)
    return moved


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
