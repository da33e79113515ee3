"""The flash translation layer: where mapping units lie, which block is collected next, what a fill leaves behind.

Nothing here takes time: `fill` moves data at once, before a run; the module `collection` does it by commands.
"""

from __future__ import annotations

from hwsim.devices.storage.state import Fault, K, M, N, State, compiled, entry, inlined
from hwsim.devices.storage.things import Bl, Block, Gr, Pl

GREEDY, CHOICES, COST_BENEFIT, FIFO = 0, 1, 2, 3
USER, COLLECTED = Gr.USER_BLOCK.value, Gr.GC_BLOCK.value
"""The open blocks of a group: of the host's data, and of what was collected; one word on is how much is used."""
_MASK = (1 << 62) - 1


@compiled
def draw(s: State) -> int:
    """The next pseudo-random number of 31 bits (a linear congruential generator of 62 bits, its upper half)."""
    s[M.RANDOM] = (s[M.RANDOM] * 3202034522624059733 + 1442695040888963407) & _MASK
    return s[M.RANDOM] >> 31


@inlined
def striped(s: State, lpn: int) -> int:
    """The slot of a mapping unit that a sequential fill puts there: rows go round the groups."""
    row, index = lpn // s[K.ROW_SLOTS], lpn % s[K.ROW_SLOTS]
    turn = row // s[K.GROUPS]
    group = s[s[K.ORDER_AT] + row - turn * s[K.GROUPS]]
    turn %= s[K.BLOCKS] * s[K.ROWS]
    block = turn // s[K.ROWS]
    return ((block * s[K.GROUPS] + group) * s[K.ROWS] + turn - block * s[K.ROWS]) * s[K.ROW_SLOTS] + index


@compiled
def slot_of(s: State, lpn: int) -> int:
    """The slot of a mapping unit, -1 where it was never written."""
    return s[s[K.L2P_AT] + lpn] - 1 if s[K.MAPPED] else striped(s, lpn)


@compiled
def block_of(s: State, slot: int) -> int:
    """The block of a slot.

    Slots are numbered through the first blocks of all groups, then through their second ones: writes go round the
    groups, and so to places near each other in the tables, where each page of memory that is touched costs time.
    """
    number = slot // s[K.BLOCK_SLOTS]
    within = number // s[K.GROUPS]
    return s[K.BLOCKS_AT] + ((number - within * s[K.GROUPS]) * s[K.BLOCKS] + within) * Bl.SIZE


@compiled
def ends_row(s: State, slot: int) -> bool:
    """Whether a slot is the last of its row."""
    return (slot + 1) % s[K.ROW_SLOTS] == 0


@compiled
def ends_block(s: State, slot: int) -> bool:
    """Whether a slot is the last of its block."""
    return (slot + 1) % s[K.BLOCK_SLOTS] == 0


@inlined
def locate(s: State, slot: int) -> tuple[int, int]:
    """The plane of a slot, and its page within its block."""
    block = slot // s[K.BLOCK_SLOTS]
    within = slot - block * s[K.BLOCK_SLOTS]
    row = within // s[K.ROW_SLOTS]
    piece = (within - row * s[K.ROW_SLOTS]) // s[K.PAGE_SLOTS]
    page = piece // s[K.WIDTH] if s[K.WIDTH] > 1 else piece
    plane = block % s[K.GROUPS] * s[K.WIDTH] + piece - page * s[K.WIDTH]
    return s[K.PLANES_AT] + plane * Pl.SIZE, row * s[K.ROW_PAGES] + page


@compiled
def forget(s: State, lpn: int) -> None:
    """The unit's slot, if it has one, holds nothing of worth any more."""
    slot = s[s[K.L2P_AT] + lpn] - 1
    if slot >= 0:
        s[s[K.P2L_AT] + slot] = 0
        s[block_of(s, slot) + Bl.VALID] -= 1
        s[s[K.L2P_AT] + lpn] = 0


@compiled
def bind(s: State, lpn: int, slot: int) -> None:
    """The unit lies in ``slot`` from now on."""
    forget(s, lpn)
    s[s[K.L2P_AT] + lpn] = slot + 1
    s[s[K.P2L_AT] + slot] = lpn + 1
    s[block_of(s, slot) + Bl.VALID] += 1


@compiled
def open_block(s: State, group: int, stream: int) -> None:
    """Give a group a fresh block for one of its streams, the least worn of its free ones."""
    best = 0
    block = s[group + Gr.BLOCK]
    for _ in range(s[K.BLOCKS]):
        if s[block + Bl.STATE] == Block.FREE and (best == 0 or s[block + Bl.ERASES] < s[best + Bl.ERASES]):
            best = block
        block += Bl.SIZE
    s[group + stream] = best
    s[group + stream + 1] = 0
    if best == 0:
        s[M.FAULT] = Fault.FULL.value
        return
    s[best + Bl.STATE] = Block.OPEN
    s[group + Gr.FREE] -= 1


@compiled
def take_slot(s: State, group: int, stream: int) -> int:
    """The next slot of an open block; a block that is full is closed and another one opened. -1: none is left."""
    block, used = s[group + stream], s[group + stream + 1]
    if block == 0:
        return -1
    if used % s[K.ROW_SLOTS] == 0:
        s[block + Bl.PENDING] += 1
    s[group + stream + 1] = used + 1
    s[M.CLOCK] += 1
    if used + 1 == s[K.BLOCK_SLOTS]:
        s[block + Bl.STATE] = Block.FULL
        s[block + Bl.CLOSED] = s[M.CLOCK]
        s[group + stream], s[group + stream + 1] = 0, 0
        if stream == COLLECTED:
            open_block(s, group, stream)
        else:
            reopen(s, group)
    return s[block + Bl.SLOT] + used


@compiled
def reopen(s: State, group: int) -> None:
    """Give a group a block for the host's data where it has none; the last free ones are for victims under way.

    A victim holds less than a block of valid data, so that those under way fill as many blocks at most.
    """
    if s[group + USER] == 0 and s[group + Gr.FREE] > max(1, s[group + Gr.VICTIMS]):
        open_block(s, group, USER)


@compiled
def skip_row(s: State, group: int, stream: int) -> None:
    """Leave the rest of a row that was begun empty."""
    while s[group + stream + 1] % s[K.ROW_SLOTS] != 0:
        take_slot(s, group, stream)
        s[N.PADDED_SLOTS] += 1


@compiled
def stocked(s: State, group: int) -> bool:
    """Whether a group may take host writes: what is left is for collection otherwise."""
    return s[group + Gr.FREE] >= s[K.GC_STOP] and s[group + USER] != 0


@compiled
def turn_of(s: State, number: int) -> int:
    """The group whose turn it is, rows going round the groups."""
    return s[K.GROUPS_AT] + s[s[K.ORDER_AT] + number] * Gr.SIZE


@compiled
def home(s: State, lpn: int) -> int:
    """The group that the next write of a unit goes to, 0 where none has room.

    Static allocation ties a unit to its group; else rows go round the groups, past those short of free blocks.
    """
    if s[K.STATIC]:
        group = turn_of(s, lpn // s[K.ROW_SLOTS] % s[K.GROUPS])
        return group if stocked(s, group) else 0
    for _ in range(s[K.GROUPS]):
        group = turn_of(s, s[M.STRIPE])
        if s[group + USER + 1] % s[K.ROW_SLOTS] != 0 or stocked(s, group):
            return group
        advance(s)
    return 0


@compiled
def advance(s: State) -> None:
    """Turn to the next group of the stripe."""
    s[M.STRIPE] = s[M.STRIPE] + 1 if s[M.STRIPE] + 1 < s[K.GROUPS] else 0


@compiled
def _worth(s: State, block: int) -> float:
    """How good a victim a block is: every policy takes the largest.

    Cost-benefit: free share x age / (2 x valid share) (Kawaguchi et al., USENIX'95).
    """
    valid = s[block + Bl.VALID]
    if s[K.GC_POLICY] == COST_BENEFIT:
        age = s[M.CLOCK] - s[block + Bl.CLOSED]
        return (s[K.BLOCK_SLOTS] - valid) * (age + 1.0) / (2.0 * valid + 1.0)
    if s[K.GC_POLICY] == FIFO:
        return -1.0 * s[block + Bl.CLOSED]
    return 1.0 * (s[K.BLOCK_SLOTS] - valid)


@compiled
def collectable(s: State, block: int) -> bool:
    """Whether a block may be collected: it is full, and all of it is programmed."""
    return s[block + Bl.STATE] == Block.FULL and s[block + Bl.PENDING] == 0


@compiled
def pick_victim(s: State, group: int) -> int:
    """The block to collect, 0 where no block of the group has anything to reclaim."""
    best, worth = 0, 0.0
    if s[K.GC_POLICY] == CHOICES:
        best = _best_of_some(s, group)
        if best and s[best + Bl.VALID] < s[K.BLOCK_SLOTS]:
            return best
        best = 0
    block = s[group + Gr.BLOCK]
    for _ in range(s[K.BLOCKS]):
        if collectable(s, block) and s[block + Bl.VALID] < s[K.BLOCK_SLOTS]:
            this = _worth(s, block)
            if best == 0 or this > worth:
                best, worth = block, this
        block += Bl.SIZE
    return best


@compiled
def _best_of_some(s: State, group: int) -> int:
    """The block with the least valid data of some different ones drawn at random, 0 where none can be collected.

    Free blocks are drawn as well, which leaves fewer to choose from (so in MQSim).
    """
    best, drawn = 0, 0
    number, blocks = 0, s[K.BLOCKS]
    for _ in range(blocks):
        # Selection sampling (Knuth 3.4.2, algorithm S): each block is drawn with the chance that makes them enough.
        block = s[group + Gr.BLOCK] + number * Bl.SIZE
        state = s[block + Bl.STATE]
        number += 1
        if (blocks - number + 1) * (draw(s) / 2147483648.0) >= s[K.GC_CHOICES] - drawn:
            continue
        drawn += 1
        if collectable(s, block) and (best == 0 or s[block + Bl.VALID] < s[best + Bl.VALID]):
            best = block
        if state == Block.OPEN or state == Block.VICTIM:
            drawn -= 1
    return best


@compiled
def coldest(s: State, group: int) -> int:
    """The collectable block with the fewest erases where the spread of erases calls for levelling, else 0."""
    low, high = 0, s[group + Gr.BLOCK]
    for number in range(s[K.BLOCKS]):
        block = s[group + Gr.BLOCK] + number * Bl.SIZE
        if s[block + Bl.ERASES] > s[high + Bl.ERASES]:
            high = block
        if collectable(s, block) and (low == 0 or s[block + Bl.ERASES] < s[low + Bl.ERASES]):
            low = block
    return low if low and s[high + Bl.ERASES] - s[low + Bl.ERASES] >= s[K.LEVELLING] else 0


@compiled
def release(s: State, block: int) -> None:
    """A block was erased: it is free again, or retired at the end of its life."""
    group = s[block + Bl.GROUP]
    s[block + Bl.ERASES] += 1
    s[block + Bl.VALID] = 0
    s[N.ERASES] += 1
    if s[block + Bl.ERASES] >= s[K.ENDURANCE]:
        s[block + Bl.STATE] = Block.RETIRED
        s[N.RETIRED] += 1
        return
    s[block + Bl.STATE] = Block.FREE
    s[group + Gr.FREE] += 1
    reopen(s, group)


@compiled
def move(s: State, slot: int, group: int) -> int:
    """Move what lies in ``slot`` to its group's block for collected data; returns the new slot, -1 without room."""
    lpn = s[s[K.P2L_AT] + slot] - 1
    new = take_slot(s, group, COLLECTED)
    if new >= 0:
        bind(s, lpn, new)
        s[N.GC_SLOTS] += 1
    return new


@compiled
def _collect(s: State, group: int) -> bool:
    """Collect one block at once; False where nothing can be reclaimed."""
    victim = pick_victim(s, group)
    if victim == 0:
        return False
    s[victim + Bl.STATE] = Block.VICTIM
    for slot in range(s[victim + Bl.SLOT], s[victim + Bl.SLOT] + s[K.BLOCK_SLOTS]):
        if s[s[K.P2L_AT] + slot]:
            _settle(s, move(s, slot, group))
    s[N.COLLECTIONS] += 1
    release(s, victim)
    return s[M.FAULT] == Fault.NONE


@compiled
def _settle(s: State, slot: int) -> None:
    """In a fill, a row is programmed as soon as it is full."""
    if slot >= 0 and ends_row(s, slot):
        s[block_of(s, slot) + Bl.PENDING] -= 1


@compiled
def _make_room(s: State, group: int, least: int) -> None:
    """Collect until a group has so many free blocks, or nothing to reclaim."""
    for _ in range(4 * s[K.BLOCKS]):  # oldest ones may have little to reclaim
        if s[group + Gr.FREE] >= least or not _collect(s, group):
            return


@entry
def fill(s: State, first: int, count: int, random: bool) -> None:
    """Write ``count`` mapping units in no time, in turn from ``first`` or drawn from all, collecting as needed."""
    for number in range(count):
        lpn = draw(s) % s[K.LPNS] if random else first + number
        group = home(s, lpn)
        slot = take_slot(s, group, USER) if group else -1
        if slot < 0:
            s[M.FAULT] = Fault.FULL.value
            return
        bind(s, lpn, slot)
        s[N.HOST_SLOTS] += 1
        _settle(s, slot)
        if ends_row(s, slot) and not s[K.STATIC]:
            advance(s)
        if ends_block(s, slot):
            _make_room(s, group, s[K.GC_START])
        if s[M.FAULT]:
            return


@entry
def close_rows(s: State) -> None:
    """Pad the rows that a fill has begun, so that a run starts with whole ones."""
    for number in range(s[K.GROUPS]):
        group = s[K.GROUPS_AT] + number * Gr.SIZE
        block = s[group + USER]
        if s[group + USER + 1] % s[K.ROW_SLOTS] != 0:
            skip_row(s, group, USER)
            s[block + Bl.PENDING] -= 1
            if s[group + USER] != block:  # it is full: writes must find as many free blocks as they wait for
                _make_room(s, group, s[K.GC_STOP])
