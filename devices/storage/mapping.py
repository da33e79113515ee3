"""The mapping cache: where the drive's memory holds only a part of the table, the rest is read from the flash.

Entries of one or more mapping units are kept in the order of use. A page of the table that is being read is read once
for all requests that wait for it.
"""

from __future__ import annotations

from hwsim.devices.storage.flash import new_tx, submit
from hwsim.devices.storage.lru import give_back, new_entry, touch
from hwsim.devices.storage.state import K, M, N, State, compiled
from hwsim.devices.storage.things import Entry, Gr, Kind, Lru, Op, Pl, Rq, Source, Tx

NOBODY = 1
"""Where a page of the table is being read and no request waits for it."""


@compiled
def translated(s: State, request: int) -> bool:
    """Whether all entries that a request needs are cached; else it waits for a page of the table.

    The request's cursor notes up to where entries were found: a cache that is smaller than what a request needs only
    makes it read more.
    """
    unit, line = s[K.SLOT_BYTES], s[K.MAP_LINE]
    last = (s[request + Rq.OFFSET] + s[request + Rq.BYTES] - 1) // unit // line
    number = s[request + Rq.CURSOR] // unit // line
    while number <= last:
        entry = s[s[K.MAP_INDEX_AT] + number]
        if entry == 0:
            s[request + Rq.CURSOR] = max(s[request + Rq.CURSOR], number * line * unit)
            _wait(s, request, number * line // s[K.MAP_COVER])
            return False
        touch(s, M.MAP_LIST.value, entry)
        if s[request + Rq.OP] == Op.WRITE:
            s[entry + Entry.DIRTY] = 1
        number += 1
    return True


@compiled
def look_up(s: State, request: int) -> None:
    """Cache the entries that a write into the write cache needs; pages of the table are read beside it."""
    unit, cover = s[K.SLOT_BYTES], s[K.MAP_COVER]
    first, last = s[request + Rq.OFFSET], s[request + Rq.OFFSET] + s[request + Rq.BYTES] - 1
    while not translated(s, request):
        page = s[request + Rq.CURSOR] // unit // s[K.MAP_LINE] * s[K.MAP_LINE] // cover
        place = s[K.MAP_WAIT_AT] + page
        s[place] = s[request + Rq.NEXT] if s[request + Rq.NEXT] else NOBODY
        s[request + Rq.NEXT] = 0
        learn(s, request, page)
        if s[request + Rq.CURSOR] > last:
            break
    s[request + Rq.CURSOR] = first


@compiled
def _wait(s: State, request: int, page: int) -> None:
    """Wait for a page of the table; the first that does so has it read."""
    place = s[K.MAP_WAIT_AT] + page
    if s[place] == 0:
        tx = new_tx(s, Kind.READ.value, Source.MAP.value, _plane_of(s, page))
        s[tx + Tx.SLOT] = page
        s[tx + Tx.BYTES] = s[K.MAP_BYTES]
        s[N.MAP_READS] += 1
        submit(s, tx)
    s[request + Rq.NEXT] = s[place] if s[place] != NOBODY else 0
    s[place] = request


@compiled
def _plane_of(s: State, page: int) -> int:
    """Pages of the table lie striped over the groups as data do."""
    group = s[K.GROUPS_AT] + s[s[K.ORDER_AT] + page % s[K.GROUPS]] * Gr.SIZE
    return s[group + Gr.PLANE] + page // s[K.GROUPS] % s[K.WIDTH] * Pl.SIZE


@compiled
def learn(s: State, request: int, page: int) -> None:
    """A page of the table is read: what the request needs of it is cached, and the least used entries leave."""
    unit, line = s[K.SLOT_BYTES], s[K.MAP_LINE]
    last = (s[request + Rq.OFFSET] + s[request + Rq.BYTES] - 1) // unit // line
    number = s[request + Rq.CURSOR] // unit // line
    while number <= last and number * line // s[K.MAP_COVER] == page:
        entry = s[s[K.MAP_INDEX_AT] + number]
        if entry == 0:
            if s[M.MAP_LIST + Lru.FREE] == 0:
                _evict(s)
            entry = new_entry(s, M.MAP_LIST.value, number)
            s[s[K.MAP_INDEX_AT] + number] = entry
        if s[request + Rq.OP] == Op.WRITE:
            s[entry + Entry.DIRTY] = 1
        number += 1
    s[request + Rq.CURSOR] = max(s[request + Rq.CURSOR], number * line * unit)


@compiled
def _evict(s: State) -> None:
    """The least used entry leaves; if it was changed, its page of the table is written: once for all that leave before
    that write begins."""
    entry = s[M.MAP_LIST + Lru.OLDEST]
    number = s[entry + Entry.KEY]
    s[s[K.MAP_INDEX_AT] + number] = 0
    if s[entry + Entry.DIRTY]:
        s[N.MAP_WRITES] += 1
        page = number * s[K.MAP_LINE] // s[K.MAP_COVER]
        if not s[K.MAP_IDLE] and s[s[K.MAP_WRITE_AT] + page] == 0:
            s[s[K.MAP_WRITE_AT] + page] = 1
            tx = new_tx(s, Kind.PROGRAM.value, Source.MAP.value, _plane_of(s, page))
            s[tx + Tx.SLOT] = page
            s[tx + Tx.BYTES] = s[K.PAGE_BYTES]
            submit(s, tx)
    give_back(s, M.MAP_LIST.value, entry)
