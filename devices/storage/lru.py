"""Lists in the order of use, for what is cached."""

from __future__ import annotations

from hwsim.devices.storage.state import State, compiled
from hwsim.devices.storage.things import Entry, Lru


@compiled
def put_first(s: State, which: int, entry: int) -> None:
    """Make an entry that is in no list the newest of list ``which``."""
    newest = s[which + Lru.NEWEST]
    s[entry + Entry.NEXT] = newest
    s[entry + Entry.BEFORE] = 0
    if newest:
        s[newest + Entry.BEFORE] = entry
    else:
        s[which + Lru.OLDEST] = entry
    s[which + Lru.NEWEST] = entry


@compiled
def take_out(s: State, which: int, entry: int) -> None:
    """Take an entry out of its list."""
    before, after = s[entry + Entry.BEFORE], s[entry + Entry.NEXT]
    if before:
        s[before + Entry.NEXT] = after
    else:
        s[which + Lru.NEWEST] = after
    if after:
        s[after + Entry.BEFORE] = before
    else:
        s[which + Lru.OLDEST] = before


@compiled
def give_back(s: State, which: int, entry: int) -> None:
    """Take an entry out of its list and let it be used for something else."""
    take_out(s, which, entry)
    s[entry + Entry.NEXT] = s[which + Lru.FREE]
    s[which + Lru.FREE] = entry


@compiled
def new_entry(s: State, which: int, key: int) -> int:
    """A free entry as the newest of the list, 0 where all are in use."""
    entry = s[which + Lru.FREE]
    if entry:
        s[which + Lru.FREE] = s[entry + Entry.NEXT]
        s[entry + Entry.KEY] = key
        s[entry + Entry.DIRTY] = 0
        s[entry + Entry.SECTORS] = 0
        put_first(s, which, entry)
    return entry


@compiled
def touch(s: State, which: int, entry: int) -> None:
    """An entry was used."""
    take_out(s, which, entry)
    put_first(s, which, entry)
