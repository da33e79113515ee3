"""The engine against a clock-by-clock reference, its command traces against the standard, and laws of memories."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from dram_reference import Reference, row_violations, violations
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.devices.dram.card import Dram, dram_names, load_dram
from hwsim.devices.dram.engine import run
from hwsim.devices.dram.layout import (
    B_HEAD,
    B_HIT,
    B_MISS,
    B_ROW,
    B_WAITS,
    C_HITS,
    C_MISSES,
    C_READS,
    COMMANDS,
    FIRST_CHANNEL,
    N_COMMANDS,
    N_HIT,
    NONE,
    NUMBERS,
    Q_NEXT,
    Q_NUMBER,
    Q_ROW,
    views,
)
from hwsim.devices.dram.memory import new_memory
from hwsim.devices.dram.patterns import MAX_BURSTS
from hwsim.devices.dram.rules import rules_of, settings_of
from hwsim.devices.dram.schema import ControllerFile
from hwsim.devices.dram.simulate import Question, simulate

CARDS = ("ddr4-3200", "ddr5-4800", "hbm2", "hbm3", "gddr6-14000", "lpddr4x-4266", "lpddr5-6400")


def controller(**changes: Any) -> ControllerFile:
    return ControllerFile(**changes)


def fast(card: Dram, chosen: ControllerFile, load: np.ndarray, outstanding: int = 0) -> tuple[Any, Any, Any]:
    rules = rules_of(card, 1)
    m = new_memory(rules.shape, settings_of(card, rules, chosen, outstanding, 0.0), rules.gap, rules.span)
    times, commands = np.zeros((len(load), 2), np.int64), np.zeros((20 * len(load) + 100, 4), np.int64)
    assert run(m, load, times, commands, len(load))
    issued = int(m[N_COMMANDS:N_HIT].sum())
    return times, [(int(t), COMMANDS[c], int(b), int(r)) for t, c, b, r in commands[:issued]], rules


@st.composite
def loads(draw: st.DrawFn, banks: int) -> np.ndarray:
    """Bursts over a few banks and rows, some written, some to the same address."""
    few = draw(st.integers(1, banks))
    size = draw(st.integers(1, 40))
    share = draw(st.sampled_from((0.0, 0.3, 1.0)))
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    bank, row, column = chance.integers(0, few, size), chance.integers(0, 3, size), chance.integers(0, 8, size)
    address = (bank * 1000 + row) * 1000 + column
    return np.stack([bank, row, address, chance.random(size) < share], axis=1).astype(np.int64)


@st.composite
def controllers(draw: st.DrawFn) -> ControllerFile:
    return controller(
        read_queue=draw(st.sampled_from((1, 4, 32))),
        write_queue=draw(st.sampled_from((2, 8, 32))),
        scheduler=draw(st.sampled_from(("frfcfs", "frfcfs-hits"))),
        row_accesses=draw(st.sampled_from((0, 0, 1, 3))),
        refresh=draw(st.sampled_from(("none", "all-bank"))),
        forwarding=draw(st.booleans()),
    )


def banks_of(card: Dram) -> int:
    o = card.organization
    return o["pseudo_channels"] * o["ranks"] * o["stacks"] * o["bank_groups"] * o["banks"]


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(CARDS), controllers(), st.sampled_from((0, 1, 5)))
def test_engine_equals_the_reference(data: st.DataObject, name: str, chosen: ControllerFile, outstanding: int) -> None:
    card = load_dram(name)
    load = data.draw(loads(banks_of(card)))
    times, commands, rules = fast(card, chosen, load, outstanding)
    slow = Reference(card, chosen, rules.ticks_per_clock, outstanding)
    slow.run([(int(b), int(r), int(a), bool(w)) for b, r, a, w in load])
    assert [(t, c, b) for t, c, b, _ in commands] == [(t, c, b) for t, c, b, _ in slow.commands][: len(commands)]
    assert times[:, 1].tolist() == [slow.done[number] for number in range(len(load))]
    assert times[:, 0].tolist() == [slow.arrived[number] for number in range(len(load))]


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(CARDS), controllers())
def test_banks_offer_their_oldest_requests(data: st.DataObject, name: str, chosen: ControllerFile) -> None:
    """After any number of bursts: what a look through all queued requests finds, and as many as are counted."""
    card = load_dram(name)
    load = data.draw(loads(banks_of(card)))
    rules = rules_of(card, 1)
    m = new_memory(rules.shape, settings_of(card, rules, chosen, 0, 0.0), rules.gap, rules.span)
    bank, _ = views(m)
    channel = m[m[FIRST_CHANNEL] :]
    for goal in range(1, len(load) + 1):
        assert run(m, load, np.zeros((len(load), 2), np.int64), np.zeros((0, 4), np.int64), goal)
        for kind in (0, 1):
            queued = [listed(m, first) for first in bank[B_HEAD + kind].tolist()]
            offered = [
                offers(one, row, waits >= 0, chosen.scheduler == "frfcfs-hits")
                for one, row, waits in zip(queued, bank[B_ROW].tolist(), bank[B_WAITS].tolist(), strict=True)
            ]
            assert bank[[B_HIT + kind, B_MISS + kind]].T.tolist() == [list(one) for one in offered]
            assert channel[C_READS + kind] == sum(map(len, queued))
            assert channel[C_HITS + kind] == sum(hit < NONE for hit, _ in offered)
            assert channel[C_MISSES + kind] == sum(miss < NONE for _, miss in offered)


def listed(m: Any, slot: int) -> list[tuple[int, int]]:
    """Number and row of the requests in a bank's list."""
    found = []
    while slot:
        found.append((int(m[slot + Q_NUMBER]), int(m[slot + Q_ROW])))
        slot = int(m[slot + Q_NEXT])
    return found


def offers(queued: list[tuple[int, int]], row: int, waits: bool, protects: bool) -> tuple[int, int]:
    """The oldest hit; the oldest miss, unless the row is awaited or an older hit is protected."""
    hit = min((number for number, wanted in queued if wanted == row), default=NONE)
    miss = min((number for number, wanted in queued if wanted != row), default=NONE)
    return hit, NONE if waits or (protects and hit < miss) else miss


def test_numbers_of_requests_fit() -> None:
    assert MAX_BURSTS <= NUMBERS + 1


@settings(max_examples=20, deadline=None)
@given(st.data(), st.sampled_from(dram_names()), controllers())
def test_no_command_breaks_a_timing(data: st.DataObject, name: str, chosen: ControllerFile) -> None:
    card = load_dram(name)
    _, commands, rules = fast(card, chosen, data.draw(loads(banks_of(card))))
    assert violations(card, commands, rules.ticks_per_clock) == []
    assert row_violations(card, commands, chosen.row_accesses > 0) == []


@pytest.mark.parametrize("name", dram_names())
def test_long_runs_break_no_timing_and_no_bandwidth(name: str) -> None:
    card = load_dram(name)
    per_clock = rules_of(card, 1).ticks_per_clock
    for pattern, share in (("stream", 1.0), ("random", 0.5)):
        answer = simulate(card, Question(pattern, requests=2000, read_share=share, trace=True))
        commands = [(int(t), COMMANDS[c], int(b), int(r)) for t, c, b, r in answer.commands]
        assert violations(card, commands, per_clock, 60) == []
        assert answer.fraction <= 1.0


def test_the_checker_finds_what_is_wrong() -> None:
    card = load_dram("ddr4-3200")
    assert violations(card, [(0, "ACT", 0, 1), (10, "RD", 0, 1)], 1)
    assert violations(card, [(0, "ACT", bank, 1) for bank in (0,)] + [(3, "ACT", 4, 1)], 1)
    assert row_violations(card, [(0, "ACT", 0, 1), (30, "RD", 0, 2)], False)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(dram_names()),
    st.sampled_from(("stream", "linear", "random", "stride")),
    st.sampled_from((1.0, 0.66, 0.0)),
    st.integers(1, 8),
)
def test_never_above_the_pins(name: str, pattern: Any, share: float, bursts: int) -> None:
    card = load_dram(name)
    answer = simulate(card, Question(pattern, requests=300, size=bursts * card.burst_bytes, read_share=share))
    assert 0 < answer.fraction <= 1.0
    assert answer.seconds >= answer.bytes / answer.peak
    counters = answer.counters
    served = counters["RD"] + counters["WR"] + counters["forwarded"] + counters["merged"]
    assert served * answer.card.burst_bytes == answer.bytes


@pytest.mark.parametrize("pattern", ["random", "stream"])
def test_more_places_or_channels_never_slow_reads(pattern: Any) -> None:
    """FR-FCFS is no monotone schedule: a choice may cost a later request more than it gained, by parts of a percent."""
    card = load_dram("hbm3")
    found = [
        simulate(card, Question(pattern, 20_000, controller={"read_queue": depth})).bandwidth
        for depth in (1, 2, 4, 8, 16, 32, 64)
    ]
    assert all(more >= 0.995 * less for less, more in pairwise(found))
    channels = [simulate(card, Question(pattern, 20_000, channels=count)).bandwidth for count in (1, 2, 4, 8)]
    assert all(more > less for less, more in pairwise(channels))


def test_reads_in_flight_follow_littles_law() -> None:
    card = load_dram("ddr5-4800")
    answer = simulate(card, Question("random", 5000, outstanding=4, controller={"refresh": "none"}))
    assert answer.bandwidth * answer.latency["mean"] / card.burst_bytes == pytest.approx(4, rel=0.02)


def test_a_chase_takes_what_the_standard_says() -> None:
    """Without refresh every access closes a row, opens another and reads: tRP + tRCD + tCL + tBL, a clock to begin."""
    card = load_dram("ddr4-3200")
    answer = simulate(card, Question("chase", 3000, controller={"refresh": "none"}))
    t = card.clocks
    assert answer.latency["max"] >= (t["tRP"] + t["tRCD"] + t["tCL"] + t["tBL"] + 1) * card.clock
    assert answer.latency["p50"] == pytest.approx((t["tRP"] + t["tRCD"] + t["tCL"] + t["tBL"] + 1) * card.clock)


def test_one_bank_opens_a_row_every_row_cycle() -> None:
    card = load_dram("ddr4-3200")
    load = np.array([[0, row, row, 0] for row in range(50)], np.int64)
    times, commands, _ = fast(card, controller(refresh="none"), load)
    opened = [start for start, name, *_ in commands if name == "ACT"]
    assert set(np.diff(opened)) == {card.clocks["tRC"]}
    assert len(times) == 50


def test_four_activations_in_a_window() -> None:
    card = load_dram("ddr4-3200")
    load = np.array([[bank, 0, bank, 0] for bank in range(16)], np.int64)
    _, commands, _ = fast(card, controller(refresh="none"), load)
    opened = [start for start, name, *_ in commands if name == "ACT"]
    assert all(fifth - first >= card.clocks["tFAW"] for first, fifth in zip(opened, opened[4:], strict=False))
    assert opened[4] - opened[0] <= card.clocks["tFAW"] + 2  # a column command may hold the bus


def test_channels_that_do_not_meet_do_not_matter_to_each_other() -> None:
    """Two channels, each with the requests of one: the same times, whichever is counted first."""
    card = load_dram("ddr5-4800")
    chance = np.random.default_rng(1)
    one = np.stack([chance.integers(0, 32, 200), chance.integers(0, 9, 200), np.arange(200), np.zeros(200)], axis=1)
    one = one.astype(np.int64)
    alone, _, rules = fast(card, controller(read_queue=256), one)
    other = one + np.array([32, 0, 1000, 0])
    both = np.stack([one, other], axis=1).reshape(-1, 4)
    rules = rules_of(card, 2)
    for load in (both, both.reshape(-1, 2, 4)[:, ::-1].reshape(-1, 4)):
        m = new_memory(rules.shape, settings_of(card, rules, controller(read_queue=256), 0, 0.0), rules.gap, rules.span)
        times = np.zeros((400, 2), np.int64)
        assert run(m, np.ascontiguousarray(load), times, np.zeros((0, 4), np.int64), 400)
        first = load[:, 0] < 32
        assert times[first, 1].tolist() == alone[:, 1].tolist() == times[~first, 1].tolist()


def test_a_memory_that_stands_still_says_so() -> None:
    """One burst more than anybody asks for: no event is left, or only refreshes."""
    load = np.zeros((1, 4), np.int64)
    for refresh in ("none", "all-bank"):
        card, chosen = load_dram("ddr4-3200"), controller(refresh=refresh)
        rules = rules_of(card, 1)
        m = new_memory(rules.shape, settings_of(card, rules, chosen, 0, 0.0), rules.gap, rules.span)
        assert not run(m, load, np.zeros((1, 2), np.int64), np.zeros((0, 4), np.int64), 2)


@pytest.mark.parametrize("name", ["hbm2", "hbm3", "lpddr5-6400"])
def test_refreshes_of_single_banks(name: str) -> None:
    """Each bank in its turn, at the rate of the card; it opens no sooner than tRFCpb later, the others go on."""
    card = load_dram(name)
    per_clock, t = rules_of(card, 1).ticks_per_clock, card.clocks
    single = {"refresh": "per-bank"}
    answer = simulate(card, Question("random", 20_000, controller=single, trace=True))
    refreshed: dict[int, int] = {}
    order = []
    slack = round((card.spans["ACT"] - card.spans["REF"]) * per_clock)
    for start, command, bank, _ in answer.commands.tolist():
        if COMMANDS[command] == "REFpb":
            refreshed[bank] = start
            order.append(bank)
        elif COMMANDS[command] == "ACT" and bank in refreshed:
            assert start - refreshed[bank] >= t["tRFCpb"] * per_clock - slack
    assert order == [number % banks_of(card) for number in range(len(order))]
    assert len(order) == pytest.approx(answer.seconds / (t["tREFIpb"] * card.clock), abs=2)
    together = simulate(card, Question("random", 20_000, controller={"refresh": "all-bank"}))
    assert together.bandwidth < answer.bandwidth
