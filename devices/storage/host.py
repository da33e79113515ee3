"""The host's side: its queue, the link, and what a request is on its way through the drive."""

from __future__ import annotations

from hwsim.devices.storage.events import at_rate, occupy, serve
from hwsim.devices.storage.state import STREAM_SIZE, K, M, State, compiled
from hwsim.devices.storage.things import Log, Op, Rq, Server, Stage, Sv

DOORBELL, POINTER, COMPLETION, COMMAND_BYTES = 2, 4, 16, 64
"""Bytes of messages: a doorbell, the request for data, a completion, a command (NVM Express base specification)."""


@compiled
def link_ticks(s: State, nbytes: int) -> int:
    """Time of a message on the link, with the overhead of each of its packets."""
    # Most messages are short, and a division is slow.
    packets = 1 if nbytes <= s[K.PAYLOAD] else (nbytes + s[K.PAYLOAD] - 1) // s[K.PAYLOAD]
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
def free_at(s: State, server: int) -> int:
    """When a server has nothing more to do."""
    return s[s[K.SERVERS_AT] + server * Sv.SIZE + Sv.FREE_AT]
