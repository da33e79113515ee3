"""Spreads: bounds hold what they promise; what errs alike counts once; every estimate of a calibrated card has some."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from hwsim import estimate
from hwsim.calibration import Calibration, SpreadFile
from hwsim.card import Calibrated, Spread
from hwsim.device import card_names, load_device
from hwsim.kernel_family import kernel_family
from hwsim.kernel_spec import Cache, predict, spec_kernel
from hwsim.measured_kernels import MODEL
from hwsim.measurements import measurement_names, read_measurements
from hwsim.spreads import FEW_UNITS, spread_bounds, told_spreads, with_those_of
from hwsim.validation import Predictors, compare_measurements, to_frame


def covered(count, times=400):
    """Shares of a distribution within the bounds that some draws of it make, so many times."""
    draw = np.random.default_rng(count)
    bounds = np.log([spread_bounds(np.exp(draw.normal(0.05, 0.2, (count, 1)))) for _ in range(times)])
    low, high = norm.cdf((bounds - 0.05) / 0.2).T
    return high - low


def test_nine_of_ten_ratios_lie_within_the_bounds_that_many_make():
    assert np.mean(covered(5000, 100)) == pytest.approx(0.905, abs=0.002)


@pytest.mark.parametrize("count", [12, 19, 31, 50, 200])
def test_few_ratios_make_bounds_that_hold_nine_of_ten_nearly_always(count):
    """With 90 % confidence, and more where all ratios are within."""
    assert 0.88 < np.mean(covered(count) >= 0.9) < 0.97


def test_runs_of_one_network_count_once():
    """Eight networks, each off by a factor of its own in all of its runs: bounds hold nine of ten runs of others. Were
    every run to count, they would not."""
    draw = np.random.default_rng(8)
    own, noise = 0.2, 0.02
    held: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(400):
        networks = [np.exp(draw.normal(draw.normal(0.0, own), noise, 12)) for _ in range(8)]
        for once in held:
            low, high = np.log(spread_bounds(networks if once else np.concatenate(networks)[:, None]))
            share = np.diff(norm.cdf((low, high), scale=np.hypot(own, noise)))
            held[once].append(bool(share >= 0.9))
    assert 0.88 < np.mean(held[True]) < 0.97
    assert np.mean(held[False]) < 0.6


@pytest.mark.parametrize("count", [8, 40, 60])
def test_a_network_with_many_runs_counts_as_others_do(count):
    """One was run 200 times, the others once."""
    draw, own, noise = np.random.default_rng(count), 0.2, 0.02
    held = []
    for _ in range(300):
        runs = [np.exp(draw.normal(draw.normal(0.0, own), noise, size)) for size in (200, *[1] * (count - 1))]
        low, high = np.log(spread_bounds(runs))
        held.append(np.diff(norm.cdf((low, high), scale=np.hypot(own, noise)))[0] >= 0.9)
    assert 0.86 < np.mean(held) < 0.97


@given(st.lists(st.floats(0.5, 2.0), min_size=40, max_size=80), st.integers(2, 50))
def test_what_a_unit_repeats_moves_no_bound_beyond_the_next_unit(ratios, times):
    once = spread_bounds([np.array([ratio]) for ratio in ratios])
    repeated = spread_bounds([np.repeat(ratio, 1 + i % 3 * times) for i, ratio in enumerate(ratios)])
    for bound, moved, order in zip(once, repeated, (1, -1), strict=True):
        inwards = [order * ratio for ratio in ratios if order * ratio > order * bound * (1 + order * 1e-9)]
        assert order * bound * (1 - order * 1e-9) <= order * moved <= min(inwards, default=np.inf) * (1 + order * 1e-9)


def test_too_few_tell_nothing_and_take_another_devices_spread():
    few = [("matmul", "warm", [np.ones(5)] * (FEW_UNITS - 1))]
    many = [("copy", "warm", list(np.geomspace(0.9, 1.1, 50)[:, None]))]
    own = told_spreads([*few, *many], [("copy", "warm", [np.array([0.8, 1.0])])])
    assert list(own) == ["copy"]
    assert (own["copy"]["warm"].rows, own["copy"]["warm"].mape) == (2, pytest.approx(0.125))
    spreads = {
        "copy": {"warm": SpreadFile(low=0.5, high=2.0)},
        "matmul": {"warm": SpreadFile(low=0.7, high=1.3)},
    }
    base = Calibration(
        calibration="other", device="d", family="gpu", date="", sources=[], constants={}, spreads=spreads
    )
    found = with_those_of(base, own)
    assert found["copy"] == own["copy"]
    assert found["matmul"]["warm"] == SpreadFile(low=0.7, high=1.3, taken_from="other")


def test_what_nobody_measured_is_as_uncertain_as_the_least_sure():
    known = Calibrated("c", True, {"matmul": {"warm": Spread(0.8, 1.2)}, "copy": {"cold": Spread(0.9, 1.5)}})
    assert known.spread("matmul", "warm") == known.spread("matmul", "cold") == Spread(0.8, 1.2)
    assert known.spread("scan", "cold") == Spread(0.8, 1.5)
    assert Calibrated("c", True, {}).spread("scan", "cold") is None


def test_bounds_of_another_card_say_so_whatever_they_stand_for():
    known = Calibrated("c", True, {"matmul": {"warm": Spread(0.8, 1.2)}, "scan": {"cold": Spread(0.5, 1.1, "other")}})
    assert known.spread("nothing", "cold") == Spread(0.5, 1.2, "other")
    assert known.spread("scan", "warm") == Spread(0.5, 1.1, "other")
    assert known.spread("matmul", "cold").origin == ""
    h200 = load_device("nvidia-h200").card.calibration
    host = h200.spread("end to end", "host")
    assert host.origin == "nvidia-h100-sxm" and host.origin in h200.spread("nothing", "cold").origin


TURING = "nvidia-t4"  # a generation that nobody measured
CALIBRATED = [name for name in card_names() if name.startswith("nvidia-") and name != TURING]


@cache
def measured_kinds():
    """A kernel of every op that any shipped file has."""
    rows = [row for name in measurement_names() for row in read_measurements(name).rows if row.op != MODEL]
    return {row.op: {**row.spec, "dtype": "fp16"} if "dtype" in row.spec else dict(row.spec) for row in rows}


def kinds_for(device):
    """The same, to peers only where there are any."""
    alone = device.card.link("peer") is None and device.card.link("switch") is None
    return [
        spec for spec in measured_kinds().values() if not (alone and ("ranks" in spec or spec["op"] == "copy_peer"))
    ]


@pytest.mark.parametrize("name", CALIBRATED)
@pytest.mark.parametrize("state", list(Cache))
def test_every_estimate_of_every_family_has_an_interval(name, state):
    device = load_device(name)
    specs = kinds_for(device)
    families = {kernel_family(spec_kernel(spec, device)) for spec in specs}
    assert families >= {"matmul", "attention", "convolution", "sequence", "elementwise", "norm, softmax, reduction"}
    assert families >= {"copy", "transpose", "embedding, gather"}
    assert ("collective" in families) == any(link.to in ("peer", "switch") for link in device.card.links)
    for result in predict(specs, device, state):
        assert 0 < result["seconds_low"] <= result["seconds"] <= result["seconds_high"]


def test_constants_of_another_gpu_bring_its_spread_along():
    """The H200's recurrences and collectives: constants and spreads of the H100."""
    ours, theirs = (load_device(name).card.calibration for name in ("nvidia-h200", "nvidia-h100-sxm"))
    for family in ("sequence", "collective"):
        for state in Cache:
            spread = theirs.spread(family, state)
            assert ours.spread(family, state) == Spread(spread.low, spread.high, "nvidia-h100-sxm")


@pytest.mark.parametrize("name", CALIBRATED)
@pytest.mark.parametrize("mapper", ["recorded", "eager", "fused"])
def test_every_whole_model_has_an_interval(name, mapper):
    result = estimate("llama-3.2-1b", name, mapper=mapper, prompt=128)
    low, high = result.interval
    assert low <= result.latency <= high
    told = [note for note in result.notes if "interval" in note]
    assert len(told) == (name != "nvidia-h100-sxm")  # the one on which enough models were measured


def test_who_sets_the_pace_sets_the_interval():
    """An eager prompt of 8,192 tokens keeps the GPU busy, a token does not; a replayed one never waits."""
    spread = load_device("nvidia-h200").card.calibration.spread
    long, short, replayed = (
        estimate("llama-3.2-1b", "nvidia-h200", phase=phase, prompt=8192, mapper=mapper)
        for phase, mapper in (("prefill", "eager"), ("decode", "eager"), ("decode", "recorded"))
    )
    for result, pace in ((long, "device"), (short, "host"), (replayed, "device")):
        assert result.interval[1] / result.latency == pytest.approx(spread("end to end", pace).high)


@given(st.sampled_from([("decode", 1), ("prefill", 64), ("prefill", 1024), ("prefill", 8192)]), st.floats(0.2, 5.0))
@settings(max_examples=30)
def test_a_slower_host_is_what_a_device_with_that_host_takes(run, factor):
    device, (phase, prompt) = load_device("nvidia-h200"), run
    name = "host_launch_overhead"
    other = device.with_constants({name: factor * device.card.parameter(name)})
    ours, theirs = (
        estimate("llama-3.2-1b", target, phase=phase, prompt=prompt, mapper="eager") for target in (device, other)
    )
    assert ours.phases[0].scaled(1.0, factor) == pytest.approx(theirs.latency, rel=0.06)


@pytest.mark.parametrize(
    ("file", "card"),
    [
        ("nvidia-h200-models", "nvidia-h200"),
        ("nvidia-h200-second-models", "nvidia-h200"),
        ("nvidia-h100-sxm-models", "nvidia-h100-sxm"),
    ],
)
def test_nine_of_ten_unseen_runs_of_whole_models_lie_within(file, card):
    """Those compiled by torch with those replayed: of either file but eight or nine."""
    frame = to_frame(compare_measurements(read_measurements(file), Predictors.of(card)))
    inside = frame[frame["quantity"] == "seconds"].dropna(subset="inside")
    for _, rows in inside.groupby(inside["cache"] == "eager"):
        assert rows["inside"].mean() >= 0.9
