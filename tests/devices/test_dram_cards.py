"""DRAM cards: what ships, what a wrong one says, mappings, energies; the bench from end to end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.card import read_card
from hwsim.device import load_device
from hwsim.devices.dram.bench import bench
from hwsim.devices.dram.card import dram_names, load_dram, read_dram
from hwsim.devices.dram.effective import Access, effective, of_memory
from hwsim.devices.dram.energy import per_event
from hwsim.devices.dram.mapping import address_map
from hwsim.devices.dram.simulate import Question, simulate
from hwsim.errors import CardError, InputError, UnknownNameError
from hwsim.figures import MARKS
from hwsim.graph import Kind
from hwsim.mapper import Flow, Kernel, Transfer
from hwsim.system import system_of
from hwsim.work import Pattern, Work

TOY = """
dram: toy
title: a toy
standard: toy
sources: {s: {title: made for tests}}
organization: {mark: assumed, source: s, banks: 8, rows: 64, columns: 64, width: 8, burst_length: 8}
timing:
  {mark: assumed, source: s, tCK: 1 ns, tCL: 4, tCWL: 4, tRCD: 4, tRP: 4, tRAS: 9, tCCD_S: 4, tRRD_S: 2, tFAW: 8 ns,
   tWR: 4, tWTR_S: 4, tRTP: 4, tRFC: 30.2 ns, tREFI: 1 us}
"""
PEAKS = {  # bytes per second of the pins of all channels, from the standards' rates
    "hbm2": 256e9, "hbm2e": 409.6e9, "hbm3": 819.2e9, "hbm3e": 1228.8e9, "hbm4": 2048e9, "ddr4-2400": 19.2e9,
    "ddr4-3200": 25.6e9, "ddr5-4800": 38.4e9, "ddr5-6400": 51.2e9, "lpddr4x-4266": 8.533e9, "lpddr5-6400": 12.8e9,
    "gddr6-14000": 56e9,
}  # fmt: skip


def test_every_card_has_the_peak_of_its_standard() -> None:
    assert {name: load_dram(name).bandwidth for name in dram_names()} == pytest.approx(PEAKS, rel=1e-3)


@pytest.mark.parametrize("name", dram_names())
def test_every_figure_has_a_mark_and_a_source(name: str) -> None:
    card = load_dram(name)
    assert card.name == name
    assert len(card.figures) >= 20
    for path, figure in card.figures.items():
        assert figure.mark in MARKS, path
        assert figure.source in card.sources, path
        assert math.isfinite(figure.value)


def test_times_are_rounded_up_to_clocks() -> None:
    card = read_dram(TOY)
    assert (card.clocks["tFAW"], card.clocks["tRFC"], card.clocks["tREFI"]) == (8, 31, 1000)
    assert card.clocks["tRC"] == 13
    assert (card.burst_bytes, card.row_bytes, card.capacity) == (8, 64, 8 * 64 * 64)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("tCK: 1 ns", "tCK: 0 ns", "timing.tCK: must be above zero"),
        ("tCK: 1 ns", "tCK: .nan", "timing.tCK"),
        ("tCL: 4", "tCL: .nan", "timing.tCL: must be a time of at most"),
        ("tCL: 4", "tCL: -1", "timing.tCL: must be a time"),
        ("tCL: 4", "tCL: 0", "timing.tCL: must be above zero"),
        ("tCL: 4, ", "", "timing.tCL: missing key"),
        ("tRRD_S: 2", "tRRDS: 2", "did you mean 'tRRD_S'?"),
        ("tFAW: 8 ns", "tFAW: 8 nm", "timing.tFAW: unknown unit 'nm'"),
        ("banks: 8", "banks: 0", "organization.banks: must be a whole number from 1"),
        ("banks: 8", "banks: 1e9", "at most 65536 can be simulated"),
        ("columns: 64", "columns: 63", "organization.columns: must be a multiple of the burst length"),
        ("width: 8", "width: 0", "organization.width: must be whole bits from 1"),
        ("mark: assumed, source: s, banks", "mark: assumed, source: z, banks", "source 'z' is not among"),
        ("mark: assumed, source: s, tCK", "source: s, tCK", "timing.mark: missing key"),
        ("tRFC: 30.2 ns", "tRFC: 2 us", "a refresh must be shorter than the time between two"),
    ],
)
def test_a_wrong_card_says_what_and_where(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in TOY
    path = tmp_path / "toy.yaml"
    path.write_text(TOY.replace(old, new))
    with pytest.raises(CardError) as caught:
        read_dram(path)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))


def test_all_that_is_wrong_is_said_at_once() -> None:
    """A misspelt key hides neither figures that are out of range nor sources that are not defined."""
    text = TOY.replace("tRP: 4", "tRPP: 4").replace("tRCD: 4", "tRCD: -5")
    text = text.replace("banks: 8", "channels: -3, banks: {value: 8, mark: assumed, source: nowhere}")
    with pytest.raises(CardError) as caught:
        read_dram(text)
    said = {problem.path: str(problem) for problem in caught.value.problems}
    assert set(said) == {"timing.tRPP", "timing.tRP", "timing.tRCD", "organization.channels", "organization.banks"}
    assert "whole number from 1" in said["organization.channels"] and "%" not in said["organization.channels"]
    assert "source 'nowhere' is not among" in said["organization.banks"]


def test_an_unknown_card_has_a_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'hbm3'"):
        load_dram("hmb3")


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ({"size": 0}, "size: got 0, expected whole bursts of 8 bytes"),
        ({"size": 7}, "size: got 7, expected whole bursts of 8 bytes"),
        ({"stride": 9}, "stride: got 9, expected whole bursts of 8 bytes"),
        ({"requests": 10**12}, "requests"),
        ({"requests": 0}, "requests"),
        ({"channels": 9}, "channels: got 9, expected from 1 to 1"),
        ({"read_share": math.nan}, "read_share"),
        ({"interval": math.nan}, "interval"),
        ({"pattern": "chase", "read_share": 0.5}, "a chase only reads"),
        ({"controller": {"read_queue": 0}}, "read_queue"),
        ({"controller": {"mapping": "RoBa"}}, "not an address mapping"),
        ({"controller": {"refresh": "per-bank"}}, "the card has no tRFCpb and tREFIpb"),
        ({"controller": {"drain_below": 0.9}}, "drain_below"),
    ],
)
def test_a_wrong_question_says_what(question: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        simulate(read_dram(TOY), Question(**question))
    assert said in str(caught.value)


SIZES = {"Ro": 16, "Co": 8, "Ba": 4, "Bg": 2, "St": 1, "Ra": 2, "Pc": 2, "Ch": 2}


@given(st.sampled_from(("RoBaRaCoCh", "RoCoBaRaCh", "RoRaBaCoCh", "ChRaBaRoCo", "MOP4CLXOR", "stream", "rochrababgco")))
def test_a_mapping_is_one_to_one(name: str) -> None:
    every = address_map(name, SIZES)
    place = every.place(np.arange(every.bursts))
    assert len(set(zip(place.bank.tolist(), place.row.tolist(), place.column.tolist(), strict=True))) == every.bursts


def test_a_mapping_reads_from_the_most_significant_field() -> None:
    place = address_map("RoBaRaCoCh", SIZES).place(np.array([1, 2, 2 * 8, 2 * 8 * 2, 2 * 8 * 2 * 2]))
    channel = 4 * 2 * 2 * 2  # banks of a channel
    assert place.bank.tolist() == [channel, 0, channel // 2, channel // 4, 4]
    assert place.column.tolist() == [0, 1, 0, 0, 0]


def test_energies_from_currents_by_hand() -> None:
    """DDR4-3200, eight devices: an activation is (57 x 74 - 52 x 52 - 37 x 22) mA x 0.625 ns x 1.2 V x 8, and so on."""
    each = per_event(load_dram("ddr4-3200"))
    assert each is not None
    charge = 1.2 * 8 * 0.625e-12
    assert each["activate"] == pytest.approx((57 * 74 - 52 * 52 - 37 * 22) * charge)
    assert each["read"] == pytest.approx((168 - 52) * 4 * charge)
    assert each["write"] == pytest.approx((150 - 52) * 4 * charge)
    assert each["refresh"] == pytest.approx((250 - 52) * 576 * charge)
    assert (each["active"], each["idle"]) == pytest.approx((1.2 * 0.052 * 8, 1.2 * 0.037 * 8))


def test_an_activation_costs_energy_on_every_card() -> None:
    """DDR5-4800, four devices at 1.1 V: 103 mA over 111 clocks less 92 mA and, over 77 clocks, 1/32 of 142 - 92 mA."""
    for name in dram_names():
        each = per_event(load_dram(name))
        assert each is None or min(each[event] for event in ("activate", "read", "write", "refresh", "idle")) > 0, name
    each = per_event(load_dram("ddr5-4800"))
    assert each is not None
    assert each["activate"] == pytest.approx(((103 - 92) * 111 - 50 / 32 * 77) * 1.1 * 4 * 0.41666667e-12)


@pytest.mark.parametrize(
    ("name", "model", "scale"),
    [("hbm2e", "hbm2", 1.0), ("hbm3", "hbm2", 1.1 / 1.2), ("hbm3e", "hbm2", 1.1 / 1.2),
     ("lpddr5-6400", "lpddr4x-4266", 1.05 / 1.1)],
)  # fmt: skip
def test_scaled_energies_follow_from_the_currents_that_they_cite(name: str, model: str, scale: float) -> None:
    ours, theirs = per_event(load_dram(name)), per_event(load_dram(model))
    assert ours is not None and theirs is not None
    for event in ("activate", "read", "write", "refresh", "active", "idle"):
        assert ours[event] == pytest.approx(theirs[event] * scale**2, rel=0.02), event


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("IDD4R: 168 mA", "energy.IDD4R: missing key"),
        ("IDD0: 57 mA", "energy.IDD0: nothing beyond standby is left for 'activate'"),
    ],
)
def test_currents_that_leave_no_energy_are_refused(change: str, said: str) -> None:
    path = Path(__file__).parents[2] / "devices" / "dram" / "cards" / "ddr4-3200.yaml"
    text = path.read_text("utf-8")
    assert change in text
    with pytest.raises(CardError, match=said):
        read_dram(text.replace(change, "IDD0: 30 mA" if "IDD0" in change else ""))


def test_energy_adds_up() -> None:
    answer = simulate(load_dram("ddr4-3200"), Question("random", 5000, read_share=0.5))
    each = per_event(answer.card)
    assert each is not None and answer.energy is not None
    assert answer.energy["activate"] == pytest.approx(answer.counters["ACT"] * each["activate"])
    assert answer.energy["write"] == pytest.approx(answer.counters["WR"] * each["write"])
    standby = answer.energy["background"] / answer.seconds
    assert each["idle"] <= standby <= each["active"]


@pytest.mark.parametrize("name", ["ddr4-2400", "ddr4-3200", "ddr5-4800", "ddr5-6400", "hbm2", "hbm3", "hbm4"])
def test_formulas_come_near_where_one_limit_rules(name: str) -> None:
    card = load_dram(name)
    for pattern, most in (("stream", 0.10), ("random", 0.10), ("chase", 0.12)):
        answer = simulate(card, Question(pattern, 20_000 if pattern != "chase" else 3000))  # type: ignore[arg-type]
        assert abs(answer.difference) < most, pattern


def test_a_saturated_load_waits_longer_than_a_slow_one() -> None:
    card = load_dram("ddr4-3200")
    full = simulate(card, Question("random", 5000))
    slow = simulate(card, Question("random", 5000, interval=100e-9))
    assert slow.latency["mean"] < 0.5 * full.latency["mean"]
    assert slow.bandwidth == pytest.approx(card.burst_bytes / 100e-9, rel=0.01)


def test_the_same_seed_gives_the_same_answer() -> None:
    one, two = (bench("hbm2", {"pattern": "random", "requests": 3000, "seed": 7}) for _ in range(2))
    assert one == two
    assert bench("hbm2", {"pattern": "random", "requests": 3000, "seed": 8}) != one


def test_effective_bandwidth_by_access() -> None:
    card = load_dram("ddr5-4800")
    streamed, rows, random = (effective(card, Access(p, size)) for p, size in
                              (("stream", 64), ("random", 4096), ("random", 64)))  # fmt: skip
    assert card.bandwidth >= streamed.bandwidth > rows.bandwidth > random.bandwidth
    assert random.loaded_latency > random.latency
    assert effective(card, Access("random", 16)).bandwidth == pytest.approx(random.bandwidth / 4)
    assert effective(card, Access("random", 64), channels=8).bandwidth == pytest.approx(4 * random.bandwidth)


def test_what_was_found_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsim.devices.dram import effective as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(module, "_known", {})
    first = effective("ddr4-2400", Access("stride", 64, stride=128))
    assert len(list((tmp_path / "hwsim" / "dram").glob("*.json"))) == 1
    monkeypatch.setattr(module, "_known", {})
    monkeypatch.setattr(module, "_simulated", lambda *_: pytest.fail("simulated again"))
    assert effective("ddr4-2400", Access("stride", 64, stride=128)) == first


def test_a_device_names_the_dram_behind_its_memory() -> None:
    memory = load_device("amd-epyc-7742").card.main
    assert memory.chips is not None and memory.chips.preset == "ddr4-3200" and memory.chips.stacks == 8
    found = of_memory(memory, Access("stream"))
    assert found is not None and found.bandwidth == memory.bandwidth and 0.9 < found.fraction < 1
    assert of_memory(load_device("nvidia-t4").card.main, Access()) is None


def test_writes_alone_have_no_latency_of_reads() -> None:
    assert effective("ddr4-3200", Access("random", read_share=0.0)).loaded_latency is None


def test_another_engine_does_not_remember(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwsim.devices.dram import effective as module

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for sources in ("one", "other"):
        monkeypatch.setattr(module, "_known", {})
        monkeypatch.setattr(module, "_sources", lambda sources=sources: sources)
        effective("ddr4-2400", Access("stride", 64, stride=128))
    assert len(list((tmp_path / "hwsim" / "dram").glob("*.json"))) == 2


def test_scattered_transfers_have_the_bandwidth_of_their_memory() -> None:
    """64 B runs of DDR4: at most four activations in tFAW, 34 of 3200 MT/s clocks, of 4 clocks each on the bus."""
    system = system_of(load_device("sn40l"))
    memory = system.place("ddr").memory

    def rate(pattern: Pattern, granule: float) -> float:
        return 1e9 / system.transfer(Transfer("t", 1e9, "ddr", "hbm", pattern=pattern, granule=granule)).busy["ddr"]

    assert rate(Pattern.STREAM, 0.0) == pytest.approx(memory.bandwidth)
    assert rate(Pattern.GATHER, 64) < 0.5 * memory.bandwidth < rate(Pattern.GATHER, 4096) < memory.bandwidth * 1.0001
    assert rate(Pattern.GATHER, 16) == pytest.approx(rate(Pattern.GATHER, 64) / 4)
    stream, gather = (
        system.latency(Transfer("t", 1e9, "ddr", "hbm", pattern=pattern, granule=64))
        for pattern in (Pattern.STREAM, Pattern.GATHER)
    )
    assert stream + 50e-9 < gather < stream + 500e-9


def test_gathers_of_the_roofline_are_slower_than_streams() -> None:
    device = load_device("sn40l")
    stream, gather = (
        device.estimate(Kernel("k", Kind.GATHER, {}, Work(), (Flow("ddr", 1e9, False, pattern, 64),))).seconds
        for pattern in (Pattern.STREAM, Pattern.GATHER)
    )
    assert gather > 2 * stream


def test_a_device_that_names_no_such_dram_says_so() -> None:
    path = Path(__file__).parents[2] / "devices" / "cards" / "amd-epyc-7742.yaml"
    text = path.read_text("utf-8").replace("preset: ddr4-3200", "preset: ddr4-320")
    with pytest.raises(CardError, match="did you mean 'ddr4-3200'"):
        read_card(text, lambda _: {})


def test_capacity_is_that_of_the_parts() -> None:
    assert load_dram("hbm3").capacity == 16 * 2**30
    assert load_dram("ddr4-3200").capacity == 8 * 2**30
