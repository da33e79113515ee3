"""Whole simulations of hand-made graphs: roofline bounds, sums over kernels, folding, phases, formats."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import mlp, mlps, toy_device

from hwsim.capture import GraphModel
from hwsim.device import load_device
from hwsim.errors import InputError
from hwsim.fold import fold, unfold
from hwsim.graph import Role
from hwsim.precision import in_precision
from hwsim.simulation import estimate, with_optimizer

CARDS = ["nvidia-h200", "nvidia-a100-80gb", "nvidia-rtx-4090", "sn40l", "qualcomm-sa8295p"]
MAPPERS = ["eager", "recorded", "fused", "auto"]


@pytest.fixture(scope="module")
def devices():
    return {name: load_device(name) for name in CARDS}


@settings(max_examples=60, deadline=None)
@given(graph=mlps(), card=st.sampled_from(CARDS), mapper=st.sampled_from(MAPPERS))
def test_no_estimate_beats_the_roofline(devices, graph, card, mapper):
    """Neither the FLOPs at the card's best rate, nor each weight, the input and the output once over its memories."""
    device = devices[card]
    result = estimate(graph, device, mapper=mapper)
    best_rate = max(device.card.matmul.values())
    assert result.latency >= graph.matmul_flops / best_rate * (1 - 1e-12)
    fastest = max(memory.bandwidth for memory in device.card.memories)
    assert result.latency >= graph.bytes_of(Role.WEIGHT) / fastest * (1 - 1e-12)


@settings(max_examples=40, deadline=None)
@given(graph=mlps(), card=st.sampled_from(CARDS), mapper=st.sampled_from(MAPPERS))
def test_sums_over_kernels(devices, graph, card, mapper):
    device = devices[card]
    result = estimate(graph, device, mapper=mapper)
    frame = result.to_frame()
    assert frame["seconds"].sum() == pytest.approx(result.latency, rel=1e-9)
    static = device.card.static_power * result.latency
    assert frame["dynamic_joules"].sum() + static == pytest.approx(result.energy, rel=1e-9)
    for memory, nbytes in result.traffic.items():
        assert frame[f"{memory}_traffic"].sum() == pytest.approx(nbytes, rel=1e-9)
    assert frame["matmul_flops"].sum() == pytest.approx(graph.matmul_flops, rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(graph=mlps(), mapper=st.sampled_from(MAPPERS))
def test_folded_equals_unfolded(devices, graph, mapper):
    device = devices["nvidia-h200"]
    small, whole = (estimate(g, device, mapper=mapper) for g in (fold(graph), unfold(fold(graph))))
    assert small.latency == pytest.approx(whole.latency, rel=1e-9)
    assert small.energy == pytest.approx(whole.energy, rel=1e-9)
    assert small.peak_memory == pytest.approx(whole.peak_memory, rel=1e-9)


def test_by_hand_on_the_toy_card(tmp_path):
    """One layer, eager: three kernels, each bound by 1 TB/s; bytes counted on paper."""
    device = toy_device(tmp_path)
    width, rows = 512, 4
    result = estimate(mlp(1, width, rows), device, mapper="recorded")
    activations, weight = 2 * width * rows, 2 * width * width
    moved = [weight + 2 * activations, 2 * activations, 3 * activations]
    assert list(result.to_frame()["seconds"]) == pytest.approx([nbytes / 1e12 for nbytes in moved])
    assert result.traffic["hbm"] == sum(moved)
    assert result.peak_memory == weight + 3 * activations


def test_spilled_weights_come_over_the_link(tmp_path):
    device = toy_device(tmp_path, memories__hbm__capacity="300 kB", memories__ddr__capacity="1 kB")
    graph = mlp(layers=20, width=128)
    result = estimate(graph, device, mapper="recorded", spill=True)
    assert result.traffic["host"] == pytest.approx(result.peak_by_memory["host"])
    assert result.latency >= result.traffic["host"] / 10e9
    assert any("spilled" in note for note in result.notes)


def test_the_optimizer_is_counted():
    graph = mlp(layers=3, width=32)
    stepped = with_optimizer(graph)
    assert stepped.parameters == graph.parameters
    assert stepped.bytes_of(Role.STATE) == 3 * 4 * graph.parameters
    assert stepped.bytes_of(Role.WEIGHT) == graph.bytes_of(Role.WEIGHT)


@pytest.mark.parametrize(
    ("dtype", "factor"), [("fp32", 2.0), ("fp16", 1.0), ("int8", 0.5), ("fp8", 0.5), ("int4", 0.25)]
)
def test_formats_of_weights(dtype, factor):
    graph = mlp(layers=2)
    changed = in_precision(graph, dtype)
    assert changed.bytes_of(Role.WEIGHT) == factor * graph.bytes_of(Role.WEIGHT)
    assert changed.matmul_flops == graph.matmul_flops
    assert (changed.tensors["x"].dtype == dtype) is (dtype in ("fp32", "fp16"))


def test_a_phase_that_the_model_lacks(tmp_path):
    with pytest.raises(InputError, match="no phase 'decode'"):
        estimate(mlp(), toy_device(tmp_path), phase="decode")


def test_unfit_is_an_error_with_sizes(tmp_path):
    device = toy_device(tmp_path, memories__hbm__capacity="50 kB", memories__ddr__capacity="1 kB")
    with pytest.raises(Exception, match="does not fit in the memories of toy"):
        estimate(mlp(layers=20, width=128), device)


def test_identity_follows_the_graph():
    assert GraphModel(mlp(3)).identity == GraphModel(mlp(3)).identity != GraphModel(mlp(4)).identity


def test_trace_file(tmp_path):
    """Events of one track do not overlap, and there is one per execution."""
    result = estimate(mlp(layers=6), "nvidia-h200", mapper="eager")
    path = tmp_path / "trace.json"
    result.to_perfetto(path)
    events = [event for event in json.loads(path.read_text())["traceEvents"] if event["ph"] == "X"]
    assert len(events) == 18
    assert all(a["ts"] + a["dur"] <= b["ts"] + 1e-9 for a, b in itertools.pairwise(events))
    assert sum(event["dur"] for event in events) <= 1e6 * result.latency * (1 + 1e-9)


def test_a_graph_keeps_its_format_unless_asked(tmp_path):
    """A float32 graph costs twice the bytes of the same one in bf16, and says which it is."""
    graph = mlp(2, 64, 8)
    wide = in_precision(graph, "fp32")
    as_it_is = estimate(wide, toy_device(tmp_path), mapper="recorded")
    halved = estimate(wide, toy_device(tmp_path), mapper="recorded", dtype="bf16")
    assert (as_it_is.workload.dtype, halved.workload.dtype) == ("fp32", "bf16")
    assert as_it_is.traffic["hbm"] == 2 * halved.traffic["hbm"]
    assert in_precision(wide, "bf16") == graph


def test_fixed_sizes_refuse_a_batch(tmp_path):
    with pytest.raises(InputError, match="batch cannot be set"):
        estimate(mlp(), toy_device(tmp_path), batch=8)


def test_a_module_is_traced_first(tmp_path):
    with pytest.raises(InputError, match=r"hwsim\.trace"):
        estimate(object(), toy_device(tmp_path))


@pytest.mark.parametrize("ignored", [{"dims": {"batch": 2}}, {"overrides": {"layers": 2}}])
def test_nothing_asked_is_ignored(tmp_path, ignored):
    with pytest.raises(InputError):
        estimate(mlp(), toy_device(tmp_path), **ignored)
    with pytest.raises(InputError):
        estimate("module:factory", toy_device(tmp_path), **ignored)


def test_training_in_a_quantised_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="not modelled"):
        estimate("resnet-18", "nvidia-h200", phase="train", dtype="int8")
