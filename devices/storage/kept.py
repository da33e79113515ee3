"""What stays in the write cache: a unit that is written again within a second is not programmed until room is needed.

This is how MQSim tells hot data; a drive that packs units into rows replaces them in the open row instead.
"""

from __future__ import annotations

from hwsim.devices.storage.lru import give_back, new_entry, touch
from hwsim.devices.storage.state import K, M, State, compiled
from hwsim.devices.storage.things import Entry, Lru


@compiled
def hot(s: State, lpn: int, time: int) -> bool:
    """Whether a unit was written to the flash in this period, so that it is kept when it is written again."""
    if time > s[M.EPOCH_ENDS]:
        s[M.EPOCH] += 1
        s[M.EPOCH_ENDS] = time + s[K.KEEP]
    return s[s[K.SEEN_AT] + lpn] == s[M.EPOCH]


@compiled
def kept(s: State, lpn: int) -> int:
    """The entry of a unit that only the write cache holds, else 0."""
    return s[s[K.KEPT_INDEX_AT] + lpn] if s[K.KEEP] else 0


@compiled
def keep(s: State, lpn: int, sectors: int) -> bool:
    """Keep a unit in the write cache; False where that is full."""
    entry = kept(s, lpn)
    if entry:
        touch(s, M.KEPT_LIST.value, entry)
    else:
        if s[M.BUFFER] >= s[K.BUFFER]:
            return False
        entry = new_entry(s, M.KEPT_LIST.value, lpn)
        s[M.BUFFER] += 1
        s[s[K.KEPT_INDEX_AT] + lpn] = entry
    s[entry + Entry.SECTORS] |= sectors
    return True


@compiled
def drop(s: State, entry: int) -> None:
    """A unit leaves the write cache."""
    s[s[K.KEPT_INDEX_AT] + s[entry + Entry.KEY]] = 0
    s[M.BUFFER] -= 1
    give_back(s, M.KEPT_LIST.value, entry)


@compiled
def oldest(s: State) -> int:
    """The entry that was not written for longest, 0 where nothing is kept."""
    return s[M.KEPT_LIST + Lru.OLDEST]
