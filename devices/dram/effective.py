"""What a memory gives by access pattern, for the models of devices: simulated once, then remembered.

Channels of a memory are alike and independent, so one is simulated and counted as often as there are channels. What was
found is kept in memory and below `~/.cache/hwsim/dram`, under a digest of everything that it depends on, the sources of
this package included.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, astuple, dataclass, replace
from functools import cache
from pathlib import Path

from hwsim.card import Memory
from hwsim.devices.dram.card import Dram, load_dram
from hwsim.devices.dram.patterns import Pattern
from hwsim.devices.dram.simulate import Question, simulate
from hwsim.errors import InputError

REQUESTS = 50_000
SPREAD = "RoBaStRaCoPcBgCo2Ch"  # four bursts of a bank, then the next bank group: long runs come near a stream
LONG = 20  # times the bytes of a row: requests as long as that stream


@dataclass(frozen=True, slots=True)
class Access:
    """How a memory is used: its pattern, bytes of a request, share of reads, bytes between requests of a stride; and
    the mapping of addresses, the card's where it is empty."""

    pattern: Pattern = "stream"
    size: int = 64
    read_share: float = 1.0
    stride: int = 4096
    mapping: str = ""


@dataclass(frozen=True, slots=True)
class Effective:
    """Bytes per second, their part of the pins' rate, and seconds of a read in full queues (None where nothing is
    read) and in an idle memory."""

    bandwidth: float
    fraction: float
    loaded_latency: float | None
    latency: float


def effective(card: str | Path | Dram, access: Access, channels: int | None = None) -> Effective:
    """What ``channels`` of a memory (default: all of the card's) give for an access.

    Requests shorter than a burst still move one: ``bandwidth`` counts the bytes asked for.
    """
    memory = card if isinstance(card, Dram) else _loaded(str(card))
    if access.size < 1:
        raise InputError("an access is of at least one byte")
    whole = -(-access.size // memory.burst_bytes) * memory.burst_bytes
    useful = access.size / whole
    longest = LONG * memory.row_bytes
    asked = replace(access, size=min(whole, longest), read_share=round(access.read_share, 3))
    found = _remembered(_digest(memory, asked)) or _simulated(memory, asked)
    every = memory.organization["channels"] if channels is None else channels
    return replace(found, bandwidth=found.bandwidth * every * useful, fraction=found.fraction * useful)


def of_memory(memory: Memory, access: Access) -> Effective | None:
    """What a device's memory gives for an access, by the DRAM that its card names; None where it names none.

    The card's bandwidth is that of a stream: the DRAM says which part of its own stream's the access gets.
    """
    if memory.chips is None:
        return None
    found, stream = (effective(memory.chips.preset, one) for one in (access, Access(read_share=access.read_share)))
    full = memory.write_bandwidth if access.read_share == 0 else memory.bandwidth
    return replace(found, bandwidth=full * min(found.fraction / stream.fraction, 1.0))


def behind(memory: Memory, granule: float, write: bool) -> tuple[float, float]:
    """Runs of ``granule`` bytes anywhere in a device's memory: B/s of the bytes asked for, and the seconds that a read
    waits in full queues beyond its latency in an idle memory."""
    found = of_memory(memory, Access("random", max(int(granule), 1), 0.0 if write else 1.0, mapping=SPREAD))
    if found is None or memory.chips is None:
        return (memory.write_bandwidth if write else memory.bandwidth), 0.0
    if found.loaded_latency is None:
        return found.bandwidth, 0.0
    card = _loaded(memory.chips.preset)
    moving = min(granule, LONG * card.row_bytes) / (found.fraction * card.channel_bandwidth)
    return found.bandwidth, max(found.loaded_latency - found.latency - moving, 0.0)


@cache
def _loaded(name: str) -> Dram:
    return load_dram(name)


_known: dict[str, Effective] = {}


def _simulated(memory: Dram, access: Access) -> Effective:
    """One channel under the access, and a read at a time."""
    bursts = -(-access.size // memory.burst_bytes)
    requests = max(REQUESTS // bursts, 100)
    chosen = {"mapping": access.mapping} if access.mapping else {}
    load = simulate(
        memory,
        Question(access.pattern, requests, access.size, access.stride, access.read_share, controller=chosen),
    )
    chase = simulate(memory, Question("chase", 2000))
    found = Effective(load.bandwidth, load.fraction, load.latency.get("mean"), chase.latency["mean"])
    _keep(_digest(memory, access), found)
    return found


def _digest(memory: Dram, access: Access) -> str:
    """Names what the answer depends on."""
    parts: Mapping[str, object] = {
        "engine": _sources(),
        "clock": memory.clock,
        "clocks": dict(memory.clocks),
        "organization": {name: size for name, size in memory.organization.items() if name != "channels"},
        "width": memory.width,
        "commands": [memory.buses, dict(memory.spans)],
        "controller": memory.controller.model_dump(),
        "access": astuple(access),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@cache
def _sources() -> str:
    """Names the engine that gives the answers: a digest of this package's sources."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwsim" / "dram"


def _remembered(digest: str) -> Effective | None:
    """What was found before, in this process or an earlier one."""
    if digest not in _known:
        with suppress(OSError, ValueError, TypeError):
            _known[digest] = Effective(**json.loads((_folder() / f"{digest}.json").read_text("utf-8")))
    return _known.get(digest)


def _keep(digest: str, found: Effective) -> None:
    """Remember an answer; a cache that cannot be written is no reason to fail."""
    _known[digest] = found
    with suppress(OSError):
        _folder().mkdir(parents=True, exist_ok=True)
        partial = _folder() / f".{digest}.{os.getpid()}"
        partial.write_text(json.dumps(asdict(found)), "utf-8")
        partial.replace(_folder() / f"{digest}.json")
