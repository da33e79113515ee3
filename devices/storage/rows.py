"""Rows as commands: what one program writes to the planes of a group."""

from __future__ import annotations

from hwsim.devices.storage.flash import new_tx, submit
from hwsim.devices.storage.ftl import advance, locate
from hwsim.devices.storage.state import K, State, compiled
from hwsim.devices.storage.things import Gr, Kind, Rq, Source, Tx


@compiled
def program_row(s: State, slot: int, filled: int, request: int, source: int, victim: int) -> int:
    """Queue the program of the row that holds ``slot``, of which ``filled`` slots have data."""
    row = slot // s[K.ROW_SLOTS]
    first = row * s[K.ROW_SLOTS]
    plane, page = locate(s, first)
    tx = new_tx(s, Kind.PROGRAM.value, source, plane)
    s[tx + Tx.SPAN] = s[K.WIDTH]
    s[tx + Tx.PAGE] = page
    s[tx + Tx.SLOT] = first
    s[tx + Tx.COUNT] = filled
    s[tx + Tx.BYTES] = filled * s[K.SLOT_BYTES]
    s[tx + Tx.REQUEST] = request
    s[tx + Tx.BLOCK] = victim
    s[tx + Tx.ROW] = row
    submit(s, tx)
    return tx


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
