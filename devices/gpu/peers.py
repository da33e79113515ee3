"""Collectives between GPUs of one host as NCCL runs them, and copies to a peer.

NCCL picks a protocol by an estimate of its own (src/graph/tuning.cc: latency + bytes / bandwidth of each); what a
collective then takes starts later and sends more slowly than that:

    seconds = meeting + steps + bytes / (link x share of the protocol and function)
              + unhidden share of the first `LOOP_BYTES`

Bytes are those that one rank sends. The low-latency protocol (LL) sends a flag with every word, so that it needs no
barrier; the other (Simple) sends whole chunks. Its rings work on loops of a chunk for each channel and rank, and only
a second loop hides behind the first. LL128 is left out: NCCL's estimate takes it on no ring of few ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hwsim.devices.collective import Exchange
from hwsim.devices.gpu.chip import Chip
from hwsim.mapper import Kernel, Launch


class Protocol(NamedTuple):
    """NCCL's own figures for rings over NVLink: start and step in s, share of the link (Hopper)."""

    start: float
    step: float
    share: float


LL, SIMPLE = Protocol(6.6e-6, 0.6e-6, 0.313), Protocol(8.4e-6, 3.4e-6, 0.8)


class Function(NamedTuple):
    """What a function's kernels reach: shares of what a copy engine sends over the link by LL and by Simple, the start
    of Simple in meetings, and shares of bytes that are not hidden: of the first loop, of the first ``fill_bytes``, and
    of a rank's ``own`` part, which all_gather and reduce_scatter move through its memory besides.

    From rows of two H100 under NCCL 2.28. all_to_all is point to point, in chunks that small operands make smaller.
    """

    ll: float
    simple: float
    start: float
    unhidden: float
    fill: float = 0.0
    fill_bytes: float = 0.0
    own: float = 0.0


GATHER = Function(0.26, 0.89, 2.1, 0.125, 0.19, 2.2e7, 0.253)
FUNCTIONS = {
    "all_reduce": Function(0.37, 0.845, 2.33, 0.13),
    "all_gather": GATHER,
    "broadcast": GATHER,
    "reduce_scatter": Function(0.28, 0.89, 1.7, 0.18, 0.2, 2.2e7, 0.31),
    "all_to_all": Function(0.0, 0.9, 0.0, 0.28, 2.2, 2.0e6),
}
LOOP_BYTES = 1.8e8  # channels x ranks x chunks that are under way at once
# Ranks that replay a graph meet anew in every collective; a queued launch finds the others waiting. Up to `FIRST_BYTES`
# they meet sooner. A copy to a peer is started by the host, which lets the streams of both devices wait for each other.
QUEUED_MEETING, QUEUED_COPY, REPEATED_COPY = 0.46, 0.96, 1.5
FIRST_BYTES, QUEUED_FIRST, REPEATED_FIRST = 3e3, 0.19, 0.1


@dataclass(frozen=True, slots=True)
class Sending:
    """One collective: its function, what a rank sends over the link, how many ranks there are, how it is launched."""

    function: str
    exchange: Exchange
    ranks: int
    launch: Launch

    def seconds(self, chip: Chip) -> float:
        """Its time without the launch in s; never below the link's datasheet."""
        return max(self.exchange.seconds, self._copy(chip) if self.function == "copy_peer" else self._ring(chip))

    def _copy(self, chip: Chip) -> float:
        start = QUEUED_COPY if self.launch is Launch.EAGER else REPEATED_COPY
        return start * chip["peer_latency"] + self.exchange.nbytes / (self.exchange.link.bandwidth * chip["peer_share"])

    def _ring(self, chip: Chip) -> float:
        function, nbytes = FUNCTIONS[self.function], self.exchange.nbytes
        bandwidth = self.exchange.link.bandwidth * chip["peer_share"]
        protocol = LL if function.ll and self.estimate(LL) < self.estimate(SIMPLE) else SIMPLE
        if protocol is LL or not function.start:
            queued = self.launch is Launch.EAGER
            first = (QUEUED_FIRST if queued else REPEATED_FIRST) * min(1.0, nbytes / FIRST_BYTES)
            meetings = (QUEUED_MEETING if queued else 1.0) + first
        else:
            meetings = function.start
        start = meetings * chip["peer_latency"] + self._more(protocol)
        if protocol is LL:
            return start + nbytes / (bandwidth * function.ll)
        others = self.ranks - 1
        unhidden = function.unhidden * min(nbytes, LOOP_BYTES) + function.own * nbytes / others
        unhidden += function.fill * min(nbytes, function.fill_bytes) / others
        return start + (nbytes + unhidden) / (bandwidth * function.simple)

    def estimate(self, protocol: Protocol) -> float:
        """NCCL's estimate of its time by a protocol in s."""
        sending = self.exchange.nbytes / (self.exchange.link.bandwidth * protocol.share)
        return protocol.start + self.exchange.steps * protocol.step + sending

    def _more(self, protocol: Protocol) -> float:
        """The time of steps beyond those of two ranks, which the starts contain; all_to_all sends to all at once."""
        contained = {"all_reduce": 2, "all_to_all": self.exchange.steps}.get(self.function, 1)
        return max(0, self.exchange.steps - contained) * protocol.step


def sending(kernel: Kernel, exchange: Exchange) -> Sending:
    """The sending of one collective kernel."""
    return Sending(str(kernel.attrs.get("function")), exchange, kernel.size("ranks", 2), kernel.launch)
