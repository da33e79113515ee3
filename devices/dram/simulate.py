"""What a memory gives for an access pattern, simulated and by formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pydantic import ValidationError

from hwsim.devices.dram import layout as e
from hwsim.devices.dram.analytic import Estimate, estimate
from hwsim.devices.dram.card import Dram
from hwsim.devices.dram.energy import Activity, energy
from hwsim.devices.dram.engine import run
from hwsim.devices.dram.layout import Ints
from hwsim.devices.dram.mapping import address_map
from hwsim.devices.dram.memory import new_memory
from hwsim.devices.dram.patterns import MAX_BURSTS, PATTERNS, Pattern, Requests, field_sizes, requests_of
from hwsim.devices.dram.rules import Rules, rules_of, settings_of
from hwsim.devices.dram.schema import ControllerFile
from hwsim.errors import HwsimError, InputError, Problem, dotted, shown

SLICE = 200_000  # bursts between two reports of progress
MAX_CHANNELS = 64
MAX_SIZE = 1 << 20


@dataclass(frozen=True)
class Question:
    """What is asked of a memory. Bytes and seconds; ``outstanding`` 0 and ``interval`` 0: no limit.

    ``controller`` replaces keys of the card's controller.
    """

    pattern: Pattern = "stream"
    requests: int = 200_000
    size: int | None = None
    stride: int = 4096
    read_share: float = 1.0
    channels: int = 1
    outstanding: int = 0
    interval: float = 0.0
    seed: int = 0
    controller: Mapping[str, Any] = field(default_factory=dict)
    trace: bool = False


@dataclass(frozen=True)
class Answer:
    """What the simulation and the formulas say. SI units; latencies of reads, counters of bursts."""

    card: Dram
    question: Question
    controller: ControllerFile
    seconds: float
    bytes: int
    peak: float
    latency: Mapping[str, float]
    counters: Mapping[str, int]
    energy: Mapping[str, float] | None
    estimate: Estimate
    commands: Ints

    @property
    def bandwidth(self) -> float:
        """Bytes per second."""
        return self.bytes / self.seconds

    @property
    def fraction(self) -> float:
        """Bandwidth as a part of what the pins of these channels can move."""
        return self.bandwidth / self.peak

    @property
    def difference(self) -> float:
        """By how much the formulas' bandwidth lies above the simulated one, relative to it."""
        return self.estimate.bandwidth / self.bandwidth - 1.0


def simulate(card: Dram, question: Question, progress: Callable[[float], None] | None = None) -> Answer:
    """Simulate a load on a memory; ``progress`` hears the part that is done."""
    controller = checked(card, question)
    rules = rules_of(card, question.channels)
    outstanding = 1 if question.pattern == "chase" else question.outstanding
    settings = settings_of(card, rules, controller, outstanding, question.interval)
    requests = requests_of(
        card, question.pattern, controller.mapping, question.channels, question.requests,
        card.burst_bytes if question.size is None else question.size, question.stride, question.read_share,
        question.seed,
    )  # fmt: skip
    m = new_memory(rules.shape, settings, rules.gap, rules.span)
    bursts = len(requests.load)
    times = np.zeros((bursts, 2), np.int64)
    commands = np.zeros((8 * bursts + 64 if question.trace else 0, 4), np.int64)
    for goal in range(min(SLICE, bursts), bursts + SLICE, SLICE):
        if not run(m, requests.load, times, commands, min(goal, bursts)):
            raise HwsimError(_stuck(m, bursts))
        if progress:
            progress(min(goal / bursts, 1.0))
    formulas = estimate(card, controller, requests.load, question.channels, outstanding, question.interval)
    return _answer(Run(card, question, controller, rules, requests, m, times, commands), formulas)


def checked(card: Dram, question: Question) -> ControllerFile:
    """The controller of a question that makes sense; `InputError` says what does not."""
    try:
        controller = ControllerFile.model_validate({**card.controller.model_dump(), **question.controller})
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise InputError(*(Problem(one["msg"], path=dotted(one["loc"])) for one in found)) from None
    address_map(controller.mapping, field_sizes(card, 1))  # says what is wrong with it
    burst = card.burst_bytes
    size = burst if question.size is None else question.size
    bursts = max(-(-size // burst), 1)
    most = card.organization["channels"]
    needed = {"all-bank": ("tRFC", "tREFI"), "per-bank": ("tRFCpb", "tREFIpb"), "none": ()}[controller.refresh]
    missing = [name for name in needed if not card.clocks[name]]
    wrong = (
        (question.pattern not in PATTERNS, "pattern", f"one of {', '.join(PATTERNS)}", question.pattern),
        (not 1 <= question.channels <= min(most, MAX_CHANNELS), "channels", f"from 1 to {min(most, MAX_CHANNELS)}",
         question.channels),
        (not 1 <= size <= MAX_SIZE or size % burst > 0, "size", f"whole bursts of {burst} bytes, up to {MAX_SIZE}",
         size),
        (not 1 <= question.requests * bursts <= MAX_BURSTS, "requests", f"from 1 burst to {MAX_BURSTS}",
         question.requests * bursts),
        (not 0.0 <= question.read_share <= 1.0, "read_share", "from 0 to 100 %", question.read_share),
        (question.pattern == "chase" and question.read_share != 1.0, "read_share", "100 %: a chase only reads",
         question.read_share),
        (question.stride < 1 or question.stride % burst > 0, "stride", f"whole bursts of {burst} bytes",
         question.stride),
        (not 0 <= question.outstanding <= 1 << 20, "outstanding", "from 0 (no limit) to 1048576", question.outstanding),
        (not 0.0 <= question.interval < 1.0, "interval", "from 0 to below 1 s", question.interval),
        (controller.drain_below > controller.drain_above, "drain_below", "at most drain_above", controller.drain_below),
        (bool(missing), "refresh", f"none, as the card has no {' and '.join(missing)}", controller.refresh),
    )  # fmt: skip
    problems = [Problem(path=path, got=shown(got), expected=expected) for bad, path, expected, got in wrong if bad]
    if problems:
        raise InputError(*problems)
    return controller


@dataclass(frozen=True)
class Run:
    """A simulation that has ended."""

    card: Dram
    question: Question
    controller: ControllerFile
    rules: Rules
    requests: Requests
    m: Ints
    times: Ints
    commands: Ints


def _stuck(m: Ints, bursts: int) -> str:
    """Say what waits where nothing can happen any more."""
    waits = ("nothing", "a place in a queue", "a read in flight", "its arrival")[m[e.F_BLOCKED]]
    return f"the memory stands still after {m[e.F_SERVED]} of {bursts} bursts; the next request waits for {waits}"


def _answer(run: Run, formulas: Estimate) -> Answer:
    """Turn ticks into seconds and count."""
    m, tick, card = run.m, run.rules.tick, run.card
    ticks = int(run.times[:, e.T_DONE].max())
    moved = len(run.requests.load) * card.burst_bytes
    names = ("hits", "misses", "conflicts", "forwarded", "merged")
    counters = dict(zip(e.COMMANDS, m[e.N_COMMANDS : e.N_HIT].tolist(), strict=True))
    counters |= dict(zip(names, m[e.N_HIT : e.N_HIT + 5].tolist(), strict=True))
    issued = sum(counters[name] for name in e.COMMANDS)
    return Answer(
        card=card,
        question=run.question,
        controller=run.controller,
        seconds=ticks * tick,
        bytes=moved,
        peak=card.channel_bandwidth * run.question.channels,
        latency=_latency(run, tick),
        counters=counters,
        energy=energy(card, _activity(run, ticks, counters)),
        estimate=formulas,
        commands=run.commands[:issued],
    )


def _latency(run: Run, tick: float) -> dict[str, float]:
    """Seconds from a read's arrival until all of its data are there: mean, median, 99th percentile, least and most."""
    reads = run.requests.load[:, e.L_WRITE] == 0
    if not reads.any():
        return {}
    arrived, done = run.times[reads, e.T_ARRIVED], run.times[reads, e.T_DONE]
    if len(run.requests.load) > run.requests.count:
        starts = np.flatnonzero(np.diff(run.requests.request[reads], prepend=-1))
        done, arrived = np.maximum.reduceat(done, starts), np.minimum.reduceat(arrived, starts)
    taken = (done - arrived) * tick
    p50, p99 = np.percentile(taken, (50, 99))
    return {
        "mean": float(taken.mean()),
        "p50": float(p50),
        "p99": float(p99),
        "min": float(taken.min()),
        "max": float(taken.max()),
    }


def _activity(run: Run, ticks: int, counters: Mapping[str, int]) -> Activity:
    """Events, and how long units had a bank open."""
    m, tick = run.m, run.rules.tick
    units = m[m[e.FIRST_UNIT] :][: m[e.CHANNELS] * m[e.UNITS] * e.UNIT_RECORD].reshape(-1, e.UNIT_RECORD)
    still = np.where(units[:, e.U_OPEN] > 0, np.maximum(ticks - units[:, e.U_SINCE], 0), 0)
    active = min(float((units[:, e.U_ACTIVE] + still).sum()), float(ticks * len(units))) * tick
    return Activity(
        activations=counters["ACT"],
        reads=counters["RD"],
        writes=counters["WR"],
        refreshes=counters["REF"],
        bank_refreshes=counters["REFpb"],
        active=active,
        idle=ticks * len(units) * tick - active,
    )
