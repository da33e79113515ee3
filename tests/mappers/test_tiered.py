"""Tiered: everything placed once within capacity, the near tier for what is used most, copies of what lies far away."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import TOY_CARD, mlp, toy_device

import hwsim
from hwsim.device import load_device
from hwsim.engine import run
from hwsim.errors import DoesNotFitError, InputError
from hwsim.fold import fold
from hwsim.liveness import lifetimes, usage
from hwsim.mapper import Kernel, Policy, Transfer
from hwsim.mappers.eager import Eager
from hwsim.mappers.tiered import Tiered, TieredOptions, all_tiers
from hwsim.systemfile import load_system
from hwsim.testing import check_mapper

SOLVERS = ("greedy", "lp")


def tiered(**options):
    return Tiered(TieredOptions(**options))


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    """Two toys on one host, the second one for its memories."""
    path = tmp_path_factory.mktemp("cards") / "toy.yaml"
    path.write_text(TOY_CARD)
    small = {"memories.hbm.capacity": "1 MB", "memories.ddr.capacity": "1 kB"}
    return load_system({"gpu": {"card": str(path), "set": small}, "cpu": str(path)})


@pytest.mark.parametrize("solver", SOLVERS)
def test_conformance(tmp_path, solver):
    assert check_mapper(tiered(solver=solver), toy_device(tmp_path)) == []
    assert check_mapper(tiered(solver=solver), load_device("sn40l")) == []


def test_where_all_fits_it_is_what_auto_does():
    graph = hwsim.estimate("llama-3.2-1b", "nvidia-h200", phase="decode", mapper="tiered")
    assert graph.latency == pytest.approx(hwsim.estimate("llama-3.2-1b", "nvidia-h200", phase="decode").latency)


def test_lives_add_up_to_what_is_in_use():
    graph = fold(mlp(layers=5, width=32))
    alive = lifetimes(graph).alive.sum(axis=1)
    assert alive.max() == pytest.approx(usage(graph).peak_activations)


@pytest.mark.parametrize("solver", SOLVERS)
@settings(max_examples=25, deadline=None)
@given(layers=st.integers(1, 8), room=st.floats(0.02, 1.5), rows=st.integers(1, 400))
def test_bytes_are_conserved_within_capacity(tmp_path_factory, solver, layers, room, rows):
    graph = mlp(layers=layers, width=64, rows=rows)
    need = usage(graph).peak
    device = toy_device(tmp_path_factory.mktemp("card"), memories__hbm__capacity=f"{need * room:.0f} B")
    schedule = tiered(solver=solver, kernels="eager").schedule(graph, device, Policy())
    for memory in device.card.memories:
        assert schedule.peak[memory.name] <= memory.capacity * (1 + 1e-6)
    assert sum(schedule.peak.values()) >= need * (1 - 1e-9)
    for item, shares in schedule.placement.shares.items():
        assert sum(shares.values()) == pytest.approx(1.0), item
    moved = sum(n * k.nbytes for k, n in zip(schedule.kernels, schedule.counts, strict=True))
    plain = Eager().schedule(graph, toy_device(tmp_path_factory.mktemp("card")), Policy())
    assert moved == pytest.approx(sum(n * k.nbytes for k, n in zip(plain.kernels, plain.counts, strict=True)))


@settings(max_examples=15, deadline=None)
@given(st.floats(0.05, 0.9), st.floats(1.0, 3.0), st.integers(1, 300))
def test_more_capacity_is_never_slower(tmp_path_factory, room, more, rows):
    """On a device whose memories are all that counts: the linear program minimises what the engine takes."""
    graph = mlp(layers=6, width=64, rows=rows)
    need = usage(graph).peak

    def seconds(capacity):
        change = {"memories__hbm__capacity": f"{capacity:.0f} B", "compute__matmul__bf16": "1e9 TFLOP/s"}
        fast = {"compute__vector__fp32": "1e9 TFLOP/s", "compute__special": "1e9 TFLOP/s"}
        device = toy_device(tmp_path_factory.mktemp("card"), **change, **fast)
        return run(tiered(solver="lp").schedule(graph, device, Policy()), device).seconds

    assert seconds(need * room * more) <= seconds(need * room) * (1 + 1e-5)


def test_far_weights_are_copied_while_others_compute(system):
    graph = mlp(layers=40, width=256)
    schedule = tiered(chunk=1e6).schedule(graph, system, Policy())
    far = schedule.peak["cpu.hbm"]
    moved = sum(n * s.nbytes for s, n in zip(schedule.steps, schedule.counts, strict=True) if isinstance(s, Transfer))
    assert moved == pytest.approx(far)  # every weight is used once
    assert schedule.peak["hbm"] <= 1e6
    together = run(schedule, system)
    apart = run(tiered(chunk=1e6, overlap=False).schedule(graph, system, Policy()), system)
    assert together.seconds < apart.seconds
    kinds = [type(step) for step in schedule.steps]
    assert Kernel in kinds and Transfer in kinds
    copies = [s for s in schedule.steps if isinstance(s, Transfer)]
    assert together.seconds >= moved / 10e9  # the link
    assert {copy.source for copy in copies} == {"cpu.hbm"}


def test_what_is_too_large_for_its_buffer_passes_in_pieces(system):
    """Loads and kernels then run side by side: the longer of both, layer by layer, and buffers of one piece."""
    graph = mlp(layers=20, width=512, rows=8)
    schedule = tiered(chunk=10_000, kernels="recorded").schedule(graph, system, Policy())
    loads = [step for step in schedule.steps if isinstance(step, Transfer)]
    assert {load.name for load in loads} == {"pass"}
    moved = sum(n * s.nbytes for s, n in zip(schedule.steps, schedule.counts, strict=True) if isinstance(s, Transfer))
    assert run(schedule, system).seconds == pytest.approx(moved / 10e9, rel=0.1)
    assert schedule.peak["hbm"] <= 1e6


def test_activations_spill_and_come_back(system):
    """Activations alone are larger than the near memory: what is written out is read back."""
    graph = mlp(layers=6, width=64, rows=3000)
    schedule = tiered(tiers=("hbm", "cpu.hbm"), kernels="eager", chunk=1e5).schedule(graph, system, Policy())
    steps = [s for s in schedule.steps if isinstance(s, Transfer)]
    names = {step.name for step in steps}
    assert {"spill", "reload"} <= names
    assert schedule.peak["hbm"] <= 1e6 * (1 + 1e-9)
    assert run(schedule, system).seconds > 0


def test_activations_of_a_long_graph_are_placed_as_one(system, monkeypatch):
    monkeypatch.setattr("hwsim.mappers.tiered.MANY", 0)
    graph = mlp(layers=6, width=64, rows=3000)
    schedule = tiered(tiers=("hbm", "cpu.hbm"), kernels="eager", chunk=1e5).schedule(graph, system, Policy())
    assert sum(schedule.placement.unnamed.values()) == pytest.approx(1.0)
    assert 0 < schedule.placement.unnamed["cpu.hbm"] < 1
    assert {"spill", "reload"} <= {step.name for step in schedule.transfers}


def test_what_does_not_fit_is_refused_or_spilled(tmp_path):
    device = toy_device(tmp_path, memories__hbm__capacity="120 kB", memories__ddr__capacity="1 kB")
    graph = mlp(layers=20, width=128)
    with pytest.raises(
        DoesNotFitError, match=r"mlp does not fit in the tiers of toy \(hbm, ddr\): needs 6\d\d.* kB, has 121 kB"
    ):
        tiered().schedule(graph, device, Policy())
    schedule = tiered().schedule(graph, device, Policy(spill=True))
    assert schedule.peak["host"] > 0
    assert run(schedule, device).seconds > 0


def test_tiers_can_be_left_out(system):
    with pytest.raises(InputError, match="no tier 'hbn'; did you mean 'hbm'"):
        tiered(tiers=("hbn",)).schedule(mlp(), system, Policy())
    schedule = tiered(tiers=("hbm",)).schedule(mlp(), system, Policy())
    assert set(schedule.peak) == {"hbm"}


def test_an_idle_weight_goes_out_first(tmp_path):
    graph = mlp(layers=2, width=128)
    idle = replace(graph.tensors["w0"], name="idle")
    graph = replace(graph, tensors={"idle": idle, **graph.tensors})
    room = usage(graph).peak - idle.nbytes
    device = toy_device(tmp_path, memories__hbm__capacity=f"{room} B")
    schedule = tiered(kernels="eager").schedule(graph, device, Policy())
    assert schedule.placement.shares == {"idle": {"ddr": 1.0}}
    assert schedule.notes == ("32.77 kB in ddr",)


def test_far_tiers_are_planned_at_what_transfers_take():
    """Writes to the host are slower than reads of it on this system, and drives write slower than they read."""
    system = load_system("t4-208gb-fitted")
    far = [tier for tier in all_tiers(system, spill=False) if tier.far]
    assert len(far) > 1
    for tier in far:
        for source, target, rate in (
            (tier.name, system.card.main.name, tier.inward),
            (system.card.main.name, tier.name, tier.outward),
        ):
            transfer = Transfer("copy", 1e12, source, target)
            taken = system.transfer(transfer).seconds - system.latency(transfer)
            assert 1e12 / rate == pytest.approx(taken, rel=1e-6), tier.name
