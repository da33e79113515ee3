"""What a memory gives by access pattern, for the models of devices: simulated once, then remembered.

Channels of a memory are alike and independent, so one is simulated and counted as often as there are channels. What was
found is kept in memory and below `~/.cache/hwsim/dram`, under a digest of everything that it depends on.
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

VERSION = 1  # of the engine's results; a new one leaves what was remembered behind
REQUESTS = 50_000
LONG = 20  # times the bytes of a row: requests as long as that stream


@dataclass(frozen=True, slots=True)
class Access:
    """How a memory is used: its pattern, bytes of a request, share of reads, bytes between requests of a stride."""

    pattern: Pattern = "stream"
    size: int = 64
    read_share: float = 1.0
    stride: int = 4096


@dataclass(frozen=True, slots=True)
class Effective:
    """Bytes per second, their part of the pins' rate, and seconds of a read in full queues and in an idle memory."""

    bandwidth: float
    fraction: float
    loaded_latency: float
    latency: float


def effective(card: str | Path | Dram, access: Access, channels: int | None = None) -> Effective:
    """What ``channels`` of a memory (default: all of the card's) give for an access.

    Requests shorter than a burst still move one: ``bandwidth`` counts the bytes asked for.
    """
    memory = card if isinstance(card, Dram) else _loaded(str(card))
    if access.size < 1:
        raise InputError("an access is of at least one byte")
    asked = replace(access, size=min(access.size, LONG * memory.row_bytes), read_share=round(access.read_share, 3))
    found = _remembered(_digest(memory, asked)) or _simulated(memory, asked)
    every = memory.organization["channels"] if channels is None else channels
    return replace(found, bandwidth=found.bandwidth * every)


def of_memory(memory: Memory, access: Access) -> Effective | None:
    """What a device's memory gives for an access, by the DRAM that its card names; None where it names none.

    The pins of the device run at the card's ``bandwidth``: the DRAM gives the fraction of it and the latencies.
    """
    if memory.chips is None:
        return None
    found = effective(memory.chips.preset, access)
    return replace(found, bandwidth=found.fraction * memory.bandwidth)


@cache
def _loaded(name: str) -> Dram:
    return load_dram(name)


_known: dict[str, Effective] = {}


def _simulated(memory: Dram, access: Access) -> Effective:
    """One channel under the access, and a read at a time."""
    bursts = -(-access.size // memory.burst_bytes)
    requests = max(REQUESTS // bursts, 100)
    load = simulate(
        memory,
        Question(access.pattern, requests, access.size, access.stride, access.read_share),
    )
    chase = simulate(memory, Question("chase", 2000))
    useful = access.size / (bursts * memory.burst_bytes)
    found = Effective(
        load.bandwidth * useful,
        load.fraction * useful,
        load.latency.get("mean", 0.0),
        chase.latency["mean"],
    )
    _keep(_digest(memory, access), found)
    return found


def _digest(memory: Dram, access: Access) -> str:
    """Names what the answer depends on."""
    parts: Mapping[str, object] = {
        "version": VERSION,
        "clock": memory.clock,
        "clocks": dict(memory.clocks),
        "organization": {name: size for name, size in memory.organization.items() if name != "channels"},
        "width": memory.width,
        "commands": [memory.buses, dict(memory.spans)],
        "controller": memory.controller.model_dump(),
        "access": astuple(access),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


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
