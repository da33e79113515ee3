"""What reads become: pages of the flash, or data of the write cache."""

from __future__ import annotations

from hwsim.devices.storage.collection import collect_if_short
from hwsim.devices.storage.events import serve
from hwsim.devices.storage.flash import new_tx, submit
from hwsim.devices.storage.ftl import (
    USER,
    advance,
    bind,
    block_of,
    ends_block,
    ends_row,
    home,
    locate,
    slot_of,
    take_slot,
)
from hwsim.devices.storage.host import dram_ticks, part_done
from hwsim.devices.storage.kept import kept
from hwsim.devices.storage.rows import send_row
from hwsim.devices.storage.state import SECTOR, K, M, N, State, compiled, inlined
from hwsim.devices.storage.things import Bl, Gr, Kind, Row, Rq, Server, Source, Stage, Tx


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
        if slot >= 0 or kept(s, lpn):
            if in_cache(s, lpn, slot):
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
        serve(s, Server.DRAM.value, time, dram_ticks(s, from_buffer), Stage.BUFFERED.value, request)
    part_done(s, request, time)


@inlined
def read_page(s: State, request: int, slot: int, nbytes: int, source: int) -> int:
    """Queue the read of a page."""
    plane, page = locate(s, slot)
    tx = new_tx(s, Kind.READ.value, source, plane)
    s[tx + Tx.PAGE] = page
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
    bind(s, lpn, slot)
    s[M.BUFFER] += s[K.BUFFERED]
    if ends_row(s, slot):
        _end_row(s, group, slot)
    if s[K.PARTIAL]:
        s[s[K.SECTORS_AT] + lpn] = sector_mask(start, nbytes)
    if ends_block(s, slot):
        collect_if_short(s, group)
    return slot


@compiled
def _end_row(s: State, group: int, slot: int) -> None:
    """A unit that was never written ends a row: it is programmed where others of it were, else nothing happens."""
    if s[group + Gr.ROW_BYTES]:
        send_row(s, group, slot, s[K.ROW_SLOTS], 0)
        return
    s[block_of(s, slot) + Bl.PENDING] -= 1
    s[M.BUFFER] -= s[K.ROW_SLOTS] * s[K.BUFFERED]
    if not s[K.STATIC]:
        advance(s)


@compiled
def in_cache(s: State, lpn: int, slot: int) -> bool:
    """Whether the write cache holds a unit: as kept there, or until its row is programmed."""
    if not s[K.MAPPED] or not s[K.BUFFERED]:
        return False
    return kept(s, lpn) != 0 or s[s[K.ROWS_AT] + slot // s[K.ROW_SLOTS]] & Row.BUFFERED != 0
