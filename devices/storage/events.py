"""Pending events: a binary heap of (time, source), and servers that serve in order of arrival."""

from __future__ import annotations

from hwsim.devices.storage.state import HORIZON, RATE_BITS, SOURCE_BITS, K, M, State, compiled, entry, inlined
from hwsim.devices.storage.things import Sv

NEVER = 2**63 - 1
"""What follows the heap: later than all events, so that the last one of an even number has a neighbour."""


@compiled
def at_rate(nbytes: int, rate: int) -> int:
    """Ticks of ``nbytes`` at a rate, a begun tick counts."""
    return (nbytes * rate + (1 << RATE_BITS) - 1) >> RATE_BITS


@entry
def schedule(s: State, time: int, source: int) -> None:
    """Let ``source`` have its event at ``time``; a source has one event at a time."""
    heap = s[K.HEAP_AT]
    key = ((time - s[M.BASE]) << SOURCE_BITS) | source
    place = s[M.HEAP]
    s[M.HEAP] = place + 1
    if s[M.GAP]:
        s[M.GAP] = 0
        _sink(s, key)
        return
    s[heap + place + 1] = NEVER
    while place > 0:
        above = (place - 1) >> 1
        if s[heap + above] <= key:
            break
        s[heap + place] = s[heap + above]
        place = above
    s[heap + place] = key


@entry
def next_event(s: State) -> int:
    """Take the earliest event, as time from M.BASE and source in one number.

    It leaves a gap at the top, which most often the next one that is scheduled fills: what follows at once stays there.
    """
    heap = s[K.HEAP_AT]
    if s[M.GAP]:
        last = heap + s[M.HEAP]
        key = s[last]
        s[last] = NEVER
        _sink(s, key)
    s[M.GAP] = 1
    s[M.HEAP] -= 1
    return s[heap]


@compiled
def _sink(s: State, key: int) -> None:
    """Put an event into the gap at the top, and let earlier ones rise."""
    heap, size = s[K.HEAP_AT], s[M.HEAP]
    place, below = 0, 1
    while below < size:
        below += s[heap + below + 1] < s[heap + below]  # without a branch, which would be guessed wrong half the time
        if key <= s[heap + below]:
            break
        s[heap + place] = s[heap + below]
        place, below = below, 2 * below + 1
    s[heap + place] = key


@compiled
def rebase(s: State, time: int) -> None:
    """Let pending events count from ``time``, which none of them precedes, once the base is long past.

    All of them move by the same, so that their order stays.
    """
    past = time - s[M.BASE]
    if past < HORIZON:
        return
    s[M.BASE] = time
    for place in range(s[K.HEAP_AT], s[K.HEAP_AT] + s[M.HEAP] + s[M.GAP]):
        s[place] -= past << SOURCE_BITS


@compiled
def enter(s: State, server: int, time: int, stage: int, request: int) -> None:
    """Note that ``request`` leaves ``server`` at ``time``, after all that entered before."""
    places = s[K.RING_PLACES]
    this = s[K.SERVERS_AT] + server * Sv.SIZE
    count = s[this + Sv.COUNT]
    place = s[K.RING_AT] + 2 * (server * places + ((s[this + Sv.HEAD] + count) & (places - 1)))
    s[place] = time
    s[place + 1] = (request << 8) | stage
    s[this + Sv.COUNT] = count + 1
    if count == 0:
        schedule(s, time, server)


@inlined
def leave(s: State, server: int) -> int:
    """The request and stage whose turn at ``server`` ends now, in one number."""
    places = s[K.RING_PLACES]
    this = s[K.SERVERS_AT] + server * Sv.SIZE
    ring = s[K.RING_AT] + 2 * server * places
    head = s[this + Sv.HEAD]
    item = s[ring + 2 * head + 1]
    head = (head + 1) & (places - 1)
    s[this + Sv.HEAD] = head
    s[this + Sv.COUNT] -= 1
    if s[this + Sv.COUNT] > 0:
        schedule(s, s[ring + 2 * head], server)
    return item


@compiled
def occupy(s: State, server: int, time: int, ticks: int) -> int:
    """Hold ``server`` for ``ticks`` from when it is free; returns when that ends."""
    this = s[K.SERVERS_AT] + server * Sv.SIZE
    end = max(time, s[this + Sv.FREE_AT]) + ticks
    s[this + Sv.FREE_AT] = end
    s[this + Sv.TICKS] += ticks
    return end


@compiled
def serve(s: State, server: int, time: int, ticks: int, stage: int, request: int) -> None:
    """Let ``request`` hold ``server`` for ``ticks`` from when it is free, and go on to ``stage``."""
    enter(s, server, occupy(s, server, time, ticks), stage, request)
