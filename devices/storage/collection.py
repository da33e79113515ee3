"""Garbage collection and wear levelling as commands: pages of a victim are read, moved, and the victim is erased."""

from __future__ import annotations

from hwsim.devices.storage.flash import new_tx, submit
from hwsim.devices.storage.ftl import (
    block_of,
    coldest,
    collectable,
    ends_block,
    ends_row,
    locate,
    move,
    pick_victim,
    release,
)
from hwsim.devices.storage.rows import program_row
from hwsim.devices.storage.state import K, N, State, compiled
from hwsim.devices.storage.things import Bl, Block, Gr, Kind, Lun, Pl, Row, Source, Tx


@compiled
def roomy(s: State, group: int) -> bool:
    """Whether there is room to empty another block of a group: each one under way may need a free block."""
    return s[group + Gr.VICTIMS] < s[group + Gr.FREE]


@compiled
def collect_if_short(s: State, group: int) -> None:
    """Begin to collect a block of a group that is short of free ones, or later where that cannot be yet."""
    if s[group + Gr.FREE] < s[K.GC_START] and s[group + Gr.VICTIMS] < s[K.GC_LIMIT] and not collect(s, group):
        s[group + Gr.POSTPONED] += 1


@compiled
def collect(s: State, group: int) -> bool:
    """Begin to collect a block of a group; False where there is no room or none to collect."""
    victim = pick_victim(s, group) if roomy(s, group) else 0
    if victim == 0:
        return False
    s[N.COLLECTIONS] += 1
    empty(s, victim)
    return True


@compiled
def catch_up(s: State, group: int) -> None:
    """Begin what was postponed, or what a group needs before it takes writes again."""
    if s[group + Gr.FREE] >= s[K.GC_START]:
        s[group + Gr.POSTPONED] = 0
    elif s[group + Gr.VICTIMS] >= s[K.GC_LIMIT]:
        return
    elif s[group + Gr.POSTPONED]:
        s[group + Gr.POSTPONED] -= collect(s, group)
    elif s[group + Gr.FREE] < s[K.GC_STOP]:
        collect(s, group)


@compiled
def level(s: State, group: int) -> None:
    """Move the coldest block of a group where its blocks are worn unevenly."""
    if s[K.LEVELLING] and s[group + Gr.VICTIMS] < s[K.GC_LIMIT] and roomy(s, group):
        victim = coldest(s, group)
        if victim:
            s[N.LEVELLINGS] += 1
            empty(s, victim)


@compiled
def empty(s: State, victim: int) -> None:
    """Begin to move what a block holds."""
    group = s[victim + Bl.GROUP]
    s[victim + Bl.STATE] = Block.VICTIM
    s[victim + Bl.MOVES] = 0
    s[victim + Bl.CURSOR] = 0
    s[group + Gr.VICTIMS] += 1
    s[s[s[group + Gr.PLANE] + Pl.LUN] + Lun.COLLECTING] += 1
    go_on(s, victim)


@compiled
def go_on(s: State, victim: int) -> None:
    """Read further pages of a victim, as many as may be on their way; erase it once all is moved."""
    plane = s[s[victim + Bl.GROUP] + Gr.PLANE]
    while s[victim + Bl.CURSOR] < s[K.BLOCK_SLOTS] and s[victim + Bl.MOVES] < s[K.GC_WINDOW]:
        slot = s[victim + Bl.SLOT] + s[victim + Bl.CURSOR]
        s[victim + Bl.CURSOR] += s[K.PAGE_SLOTS]
        valid = 0
        for other in range(slot, slot + s[K.PAGE_SLOTS]):
            valid += s[s[K.P2L_AT] + other] != 0
        if valid:
            at, page = locate(s, slot)
            tx = new_tx(s, Kind.READ.value, Source.COLLECTION.value, at)
            s[tx + Tx.PAGE] = page
            s[tx + Tx.SLOT] = slot
            s[tx + Tx.BYTES] = s[K.PAGE_BYTES] if s[K.COPY_WHOLE] else valid * s[K.SLOT_BYTES]
            s[tx + Tx.BLOCK] = victim
            s[victim + Bl.MOVES] += 1
            s[N.GC_READS] += 1
            submit(s, tx)
    if s[victim + Bl.MOVES] == 0:
        tx = new_tx(s, Kind.ERASE.value, Source.COLLECTION.value, plane)
        s[tx + Tx.SPAN] = s[K.WIDTH]
        s[tx + Tx.BLOCK] = victim
        submit(s, tx)


@compiled
def page_moved(s: State, tx: int) -> None:
    """A page of a victim was read: what in it is still valid goes into the rows of collected data."""
    victim, slot = s[tx + Tx.BLOCK], s[tx + Tx.SLOT]
    group = s[victim + Bl.GROUP]
    s[victim + Bl.MOVES] -= 1
    for old in range(slot, slot + s[K.PAGE_SLOTS]):
        if s[s[K.P2L_AT] + old]:
            new = move(s, old, group)
            if new >= 0 and ends_row(s, new):
                s[victim + Bl.MOVES] += 1
                program_row(s, new, s[K.ROW_SLOTS], 0, Source.COLLECTION.value, victim)
            if new >= 0 and ends_block(s, new):
                collect_if_short(s, group)
    go_on(s, victim)


@compiled
def row_programmed(s: State, tx: int) -> None:
    """Bookkeeping of a finished program."""
    s[N.PROGRAMS] += 1
    s[N.PROGRAMMED_SLOTS] += s[tx + Tx.COUNT]
    s[s[K.ROWS_AT] + s[tx + Tx.ROW]] &= ~Row.BUFFERED
    block = block_of(s, s[tx + Tx.SLOT])
    s[block + Bl.PENDING] -= 1
    if collectable(s, block) and s[s[block + Bl.GROUP] + Gr.POSTPONED]:
        catch_up(s, s[block + Bl.GROUP])


@compiled
def erased(s: State, tx: int) -> None:
    """A victim is erased: free again, or retired; wear may be uneven now, or still too little free."""
    victim = s[tx + Tx.BLOCK]
    group = s[victim + Bl.GROUP]
    s[group + Gr.VICTIMS] -= 1
    s[s[tx + Tx.LUN] + Lun.COLLECTING] -= 1
    release(s, victim)
    level(s, group)
    catch_up(s, group)
