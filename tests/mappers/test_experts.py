"""The mapper experts: fetches by mode against counting by hand, times against closed forms, laws."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.capture import find_model
from hwsim.engine import run
from hwsim.errors import DoesNotFitError, InputError
from hwsim.graph import Kind
from hwsim.mapper import Kernel, Policy, Transfer
from hwsim.mappers.eager import Eager
from hwsim.mappers.experts import Experts, ExpertsOptions
from hwsim.precision import in_precision
from hwsim.simulation import load_mapper
from hwsim.systemfile import load_system
from hwsim.testing import check_mapper

EXPERT = 18_874_368  # bytes of an expert of Switch-Base in fp32: 2 x 768 x 3072 x 4
LINK = 31.5e9


@pytest.fixture(scope="module")
def device():
    return hwsim.load_device("nvidia-a100-80gb")


def graph(phase="decode", model="switch-base-64", batch=1):
    captured = in_precision(find_model(model).capture(phase), "fp32")
    return captured.bind(batch=batch, prompt=256)


def plan(device, phase="decode", batch=1, model="switch-base-64", **options):
    return Experts(ExpertsOptions(**options)).schedule(graph(phase, model, batch), device, Policy())


def seconds(device, **options):
    return run(plan(device, **options), device, spans=False).seconds


def fetches(schedule):
    return [step for step in schedule.transfers if step.source == "host"]


def test_a_mapper_like_others(device):
    assert check_mapper(Experts(), device) == []
    assert check_mapper(Experts(ExpertsOptions(mode="gpu-only")), device) == []


def test_gpu_only_is_the_mapper_below(device):
    assert plan(device, mode="gpu-only") == Eager().schedule(graph(), device, Policy())


@pytest.mark.parametrize(("mode", "experts"), [("on-demand", 1), ("pre-gated", 1), ("prefetch-all", 64)])
def test_a_token_needs_an_expert_of_each_layer(device, mode, experts):
    moved = [step.nbytes for step in fetches(plan(device, mode=mode))]
    assert moved == pytest.approx([experts * EXPERT] * 6)


def test_every_expert_pays_the_latency_of_the_link(device):
    """A few experts of each layer, one after the other, and nothing that hides them."""
    far = hwsim.load_device("nvidia-a100-80gb", {"links.pcie.latency": "1001 us"})
    options = {"mode": "on-demand", "staged": False, "batch": 8}
    count = len(fetches(plan(device, **options)))
    assert 6 * 64 * (1 - (63 / 64) ** 8) <= count <= 6 * 8
    times = [seconds(one, **options) for one in (device, far)]
    assert times[1] - times[0] == pytest.approx(count * 1e-3, rel=0.01)


def test_encoders_fetch_what_their_tokens_touch(device):
    """Six layers of the encoder, whole experts in turn; then six of the decoder for its first token."""
    counts = [step.nbytes / EXPERT for step in fetches(plan(device, "prefill", mode="pre-gated"))]
    assert sum(counts[:6]) == pytest.approx(6 * 64 * (1 - (63 / 64) ** 256))
    assert counts[6:] == pytest.approx([1] * 6)


def test_gates_decide_a_layer_ahead(device):
    """On demand each fetch follows the gate of its own layer; pre-gated, but for the first, that of the one before."""
    for mode, ahead in (("on-demand", 0), ("pre-gated", 1)):
        steps = plan(device, mode=mode, staged=False).steps
        layers = [number for number, step in enumerate(steps) if isinstance(step, Kernel) and step.synced]
        came = [number for number, step in enumerate(steps) if isinstance(step, Transfer)]
        assert len(layers) == len(came) == 6
        for layer, (number, fetch) in enumerate(zip(layers, came, strict=True)):
            gate = layers[max(0, layer - ahead)]
            (routed,) = steps[fetch].waits
            assert gate - 3 <= routed.step < gate
            assert fetch in [wait.step for wait in steps[number].waits]


def test_experts_wait_for_their_own_layers_fetch_only(device):
    steps = plan(device, mode="pre-gated").steps
    waits = [max(w.step for w in step.waits) for step in steps if isinstance(step, Kernel) and step.synced]
    assert all(first < second for first, second in pairwise(waits))


def test_on_demand_adds_its_fetches_to_the_step(device):
    """Experts over 31.5 GB/s and the 1 us of the link, through an arena: six times, nothing hidden."""
    alone = seconds(device, mode="gpu-only")
    hbm = device.card.main.bandwidth
    fetch = EXPERT / LINK + 1e-6 + 2 * EXPERT / hbm
    step = seconds(device, mode="on-demand")
    assert step - alone == pytest.approx(6 * fetch, rel=0.08)  # the host no longer runs ahead


def test_prefetching_all_is_bound_by_the_link(device):
    staged = 2 / device.card.main.bandwidth  # read from the arena, written into place
    for copied, each in ((False, 1 / LINK), (True, 1 / LINK + staged)):
        assert seconds(device, mode="prefetch-all", staged=copied) == pytest.approx(6 * 64 * EXPERT * each, rel=0.01)


def test_prefetching_all_of_large_against_pre_gating():
    """128 experts a layer against one: 125 published for Switch-Large, from the link alone."""
    times = [
        hwsim.estimate(
            "switch-large-128",
            "nvidia-a100-80gb",
            phase="decode",
            prompt=256,
            dtype="fp32",
            mapper="experts",
            mapper_options={"mode": mode},
        ).latency
        for mode in ("prefetch-all", "pre-gated")
    ]
    assert times[0] / times[1] == pytest.approx(125, rel=0.05)


def test_peak_memory_is_that_of_two_layers(device):
    """Eq. 1 of arXiv 2308.12066: all but the experts, and the active ones of two layers in succession; an arena."""
    schedule = plan(device, mode="pre-gated")
    rest = schedule.footprint["weight"] - schedule.peak["host"]
    others = rest + schedule.footprint["state"] + schedule.footprint["buffer"] + schedule.footprint["activation"]
    assert schedule.peak["hbm"] == pytest.approx(others + (2 + 1) * EXPERT)
    assert schedule.peak["host"] == pytest.approx(12 * 64 * EXPERT)  # of encoder and decoder
    cached = plan(device, mode="pre-gated", cache=10)
    assert cached.peak["hbm"] == pytest.approx(schedule.peak["hbm"] + 10 * EXPERT)


def test_what_does_not_fit_is_said(device):
    with pytest.raises(DoesNotFitError):
        plan(device, mode="gpu-only", model="switch-large-128")
    small = hwsim.load_device("nvidia-a100-80gb", {"memories.hbm.capacity": "600 MB"})
    with pytest.raises(DoesNotFitError):
        plan(small, mode="pre-gated", cache=64)


def test_experts_of_a_drive_come_straight_or_over_the_host():
    """7 GB/s of a 980 Pro; a bounce adds a copy over 31.5 GB/s, as the artifact reads whole files before it copies."""
    system = load_system({"gpu": "nvidia-a100-80gb", "storage": ["samsung-980-pro"]})
    times = {
        bounced: seconds(system, mode="prefetch-all", source="storage0.nand", bounced=bounced, staged=False)
        for bounced in (False, True)
    }
    nbytes = 6 * 64 * EXPERT
    assert times[False] == pytest.approx(nbytes / 7e9, rel=0.01)
    assert times[True] == pytest.approx(nbytes * (1 / 7e9 + 1 / LINK), rel=0.01)
    schedule = plan(system, mode="on-demand", source="storage0.nand")
    assert schedule.peak["storage0.nand"] == pytest.approx(12 * 64 * EXPERT)


def test_caches_belong_to_modes_that_fetch_by_need():
    with pytest.raises(InputError, match="0 in the mode prefetch-all"):
        load_mapper("experts", {"mode": "prefetch-all", "cache": 4})


def test_analytic_and_simulated_misses_agree(device):
    for routing in ("uniform", "zipf"):
        both = [
            sum(t.nbytes for t in fetches(plan(device, cache=128, routing=routing, misses=how, steps=4000)))
            for how in ("simulated", "analytic")
        ]
        assert both[0] == pytest.approx(both[1], rel=0.05)


def test_models_without_experts_are_left_alone(device):
    dense = find_model("llama-3.2-1b").capture("decode").bind(batch=1, prompt=64)
    made = Experts().schedule(dense, device, Policy())
    assert replace(made, notes=()) == replace(Eager().schedule(dense, device, Policy()), notes=())


@settings(max_examples=6, deadline=None)
@given(
    cache=st.sampled_from([0, 30, 200]),
    batch=st.sampled_from([1, 4, 32]),
    staged=st.booleans(),
    routing=st.sampled_from(["uniform", "zipf"]),
)
def test_pre_gated_is_never_slower_than_on_demand_nor_faster_than_on_the_gpu(device, cache, batch, staged, routing):
    options = {"batch": batch, "staged": staged, "routing": routing, "cache": cache}
    ahead, demand = (seconds(device, mode=mode, **options) for mode in ("pre-gated", "on-demand"))
    assert ahead <= demand * (1 + 1e-9)
    assert ahead >= seconds(device, mode="gpu-only", batch=batch) * (1 - 1e-9)


@settings(max_examples=8, deadline=None)
@given(capacities=st.tuples(st.integers(0, 384), st.integers(0, 384)).map(sorted))
def test_more_cache_never_fetches_more(device, capacities):
    moved = [sum(step.nbytes for step in fetches(plan(device, cache=one))) for one in capacities]
    assert moved[1] <= moved[0] * (1 + 1e-9)


def test_kernels_keep_their_work(device):
    below = Eager().schedule(graph(), device, Policy())
    wanted = sum(n * kernel.work.flops for kernel, n in zip(below.kernels, below.counts, strict=True))
    schedule = plan(device, mode="pre-gated")
    assert sum(kernel.work.flops for kernel in schedule.kernels) == pytest.approx(wanted)
    assert sum(kernel.kind is Kind.MATMUL and "experts" in kernel.attrs for kernel in schedule.kernels) == 12
    assert len(schedule.in_use) == len(schedule.steps)


def test_a_model_without_experts_is_told_so():
    result = hwsim.estimate("opt-125m", "nvidia-a100-80gb", phase="decode", mapper="experts")
    assert "opt-125m has no experts: nothing is fetched" in result.notes
