"""Offload: shares on three levels, weights loaded once for all parts, copies beside kernels; by closed formulas."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import TOY_CARD, mlp, toy_device

import hwsim
from hwsim.engine import run
from hwsim.errors import DoesNotFitError, InputError
from hwsim.fold import fold
from hwsim.graph import Role
from hwsim.mapper import Kernel, Launch, Placement, Policy, Transfer
from hwsim.mappers.eager import Recorded
from hwsim.mappers.kernels import draft
from hwsim.mappers.offload import PACKED_BITS, Offload, OffloadOptions
from hwsim.mappers.streaming import Program, Route
from hwsim.systemfile import load_system
from hwsim.testing import check_mapper

DRIVE = TOY_CARD.replace("card: toy", "card: drive").replace("kind: main", "kind: storage")


def offload(**options):
    return Offload(OffloadOptions(kernels="recorded", **options))


@pytest.fixture(scope="module")
def system(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cards")
    (folder / "toy.yaml").write_text(TOY_CARD)
    (folder / "drive.yaml").write_text(DRIVE)
    toy, drive = str(folder / "toy.yaml"), str(folder / "drive.yaml")
    return load_system({"gpu": toy, "cpu": toy, "storage": [drive, drive]})


def copies(schedule, name=""):
    pairs = zip(schedule.steps, schedule.counts, strict=True)
    return [(step, count) for step, count in pairs if isinstance(step, Transfer) and step.name.startswith(name)]


def moved(schedule, name=""):
    return sum(step.nbytes * count for step, count in copies(schedule, name))


@pytest.mark.parametrize("shares", [(1, 0, 0), (0.25, 0.75, 0)])
def test_conformance(tmp_path, shares):
    mapper = Offload(OffloadOptions(weights=shares, cache=shares))
    assert check_mapper(mapper, toy_device(tmp_path)) == []


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.integers(2, 30), st.integers(1, 4))
def test_far_weights_cross_once_whatever_the_parts(system, near, host, layers, parts):
    host = (1 - near) * host
    graph = mlp(layers=layers, width=64)
    weights = graph.bytes_of(Role.WEIGHT)
    schedule = offload(weights=(near, host, 1 - near - host), batches=parts).schedule(graph, system, Policy())
    assert moved(schedule, "load weights") == pytest.approx((1 - near) * weights)
    assert schedule.peak.get("cpu.hbm", 0.0) == pytest.approx(host * weights)
    drives = [schedule.peak.get(f"storage{n}.{memory}", 0.0) for n in (0, 1) for memory in ("hbm", "ddr")]
    assert sum(drives) == pytest.approx((1 - near - host) * weights, abs=1)
    kernels = sum(
        count for step, count in zip(schedule.steps, schedule.counts, strict=True) if isinstance(step, Kernel)
    )
    assert kernels == parts * 3 * layers


def test_two_buffers_hide_the_shorter_of_loading_and_computing(system):
    """n layers of loading L and computing C each: L + (n - 1) max(L, C) + C with two buffers, n (L + C) without."""
    layers, width = 30, 1024
    for rows in (8, 200_000):
        graph = mlp(layers=layers, width=width, rows=rows)
        together, apart = (
            run(offload(weights=(0, 1, 0), overlap=way).schedule(graph, system, Policy()), system).seconds
            for way in (True, False)
        )
        load = 2 * width**2 / 10e9
        kernels = Recorded().schedule(graph, system.main, Policy())
        compute = run(kernels, system.main).seconds / layers
        assert together == pytest.approx(load + (layers - 1) * max(load, compute) + compute, rel=0.02)
        assert apart == pytest.approx(layers * (load + compute), rel=0.02)


@pytest.mark.parametrize("buffers", [1, 2, 3])
def test_buffers_are_counted_and_one_is_no_prefetch(system, buffers):
    graph = mlp(layers=20, width=512, rows=4096)
    schedule = offload(weights=(0, 1, 0), buffers=buffers).schedule(graph, system, Policy())
    use = sum(schedule.peak.values()) - graph.bytes_of(Role.WEIGHT)
    activations = schedule.footprint["activation"]
    assert use == pytest.approx(activations + buffers * 2 * 512**2)
    one = run(offload(weights=(0, 1, 0), buffers=1).schedule(graph, system, Policy()), system).seconds
    assert run(schedule, system).seconds <= one * (1 + 1e-9)


def test_parts_carry_their_hidden_states(system):
    """Each layer takes over x from the one before: in and out for every part and layer."""
    graph = mlp(layers=10, width=64, rows=16)
    schedule = offload(activations=(0, 1, 0), batches=4).schedule(graph, system, Policy())
    hidden, layers = 2 * 64 * 16, schedule.repeats[0].count
    assert moved(schedule, "load hidden") == pytest.approx(4 * layers * hidden)
    assert moved(schedule, "store hidden") == pytest.approx(4 * layers * hidden)
    assert schedule.peak["cpu.hbm"] == pytest.approx(4 * hidden)
    assert run(schedule, system).seconds > 0


class TestLanguageModels:
    """Of the zoo, where caches are."""

    def schedule(self, system, phase="decode", batch=4, prompt=500, **options):
        result = hwsim.estimate(
            "llama-3.2-1b", system, phase=phase, batch=batch, prompt=prompt, mapper="offload", mapper_options=options
        )
        return result.phases[0].schedule

    def test_attention_of_the_host_moves_queries_instead_of_the_cache(self, system):
        far = self.schedule(system, cache=[0, 1, 0])
        there = self.schedule(system, cache=[0, 1, 0], attention="host")
        cache = 2 * 16 * 8 * 64 * 2 * 501 * 4  # keys and values, layers, heads, size, bytes, tokens, sequences
        assert moved(far, "load states") == pytest.approx(cache, rel=0.01)
        assert moved(there, "load states") == 0
        query = 16 * 32 * 64 * 2 * 4
        assert moved(there, "send") == pytest.approx(2 * query, rel=0.3)
        assert {step.device for step, _ in zip(there.steps, there.counts, strict=True) if isinstance(step, Kernel)} == {
            "",
            "cpu",
        }
        assert moved(there, "store") == pytest.approx(cache / 501, rel=0.01)

    def test_prefill_stores_the_cache(self, system):
        schedule = self.schedule(system, phase="prefill", cache=[0, 0.5, 0.5], batches=2)
        cache = 2 * 16 * 8 * 64 * 2 * 500 * 4
        assert moved(schedule, "store") == pytest.approx(cache)
        assert not schedule.steady

    def test_packed_weights_take_less_everywhere(self, system):
        wide, narrow = (self.schedule(system, weights=[0, 1, 0], pack_weights=way) for way in (False, True))
        assert moved(narrow, "load weights") / moved(wide, "load weights") == pytest.approx(PACKED_BITS / 16, rel=1e-3)
        assert narrow.peak["cpu.hbm"] / wide.peak["cpu.hbm"] == pytest.approx(PACKED_BITS / 16, rel=1e-3)
        unpacked = sum(n for s, n in zip(narrow.steps, narrow.counts, strict=True) if s.name == "dequantize")
        assert unpacked > 16

    def test_packed_caches_are_packed_on_the_way_out(self, system):
        schedule = self.schedule(system, cache=[0, 1, 0], pack_cache=True)
        names = [step.name for step in schedule.steps]
        assert "quantize" in names and "dequantize" in names
        assert moved(schedule, "load states") == pytest.approx(2 * 16 * 8 * 64 * 501 * 4 * PACKED_BITS / 8, rel=0.01)

    def test_a_steady_step_takes_no_longer_than_one_alone(self, system):
        schedule = self.schedule(system, weights=[0.5, 0.5, 0])
        assert schedule.steady
        assert run(schedule, system).seconds <= run(replace(schedule, steady=False), system).seconds * (1 + 1e-9)


def test_what_is_wrong_is_said(system, tmp_path):
    with pytest.raises(InputError, match=r"weights: shares must add up to 1; got 0\.9"):
        OffloadOptions(weights=(0.5, 0.4, 0.0))
    with pytest.raises(InputError, match="attention of the host needs a cache without"):
        OffloadOptions(attention="host")
    with pytest.raises(InputError, match=r"has no drive for .*: take t4-208gb"):
        offload(weights=(0, 0, 1)).schedule(mlp(), toy_device(tmp_path), Policy())
    with pytest.raises(InputError, match="no device called 'cpu'"):
        offload(cache=(0, 1, 0), attention="host").schedule(mlp(), toy_device(tmp_path), Policy())
    with pytest.raises(InputError, match="a batch of 3 cannot be divided into 2 equal parts"):
        hwsim.estimate("llama-3.2-1b", system, batch=3, mapper="offload", mapper_options={"batches": 2})
    small = toy_device(tmp_path, memories__hbm__capacity="50 kB")
    with pytest.raises(DoesNotFitError, match=r"mlp, with 65.54 kB of buffers, does not fit in hbm"):
        offload(weights=(0, 1, 0), chunk=1e6).schedule(mlp(width=128), small, Policy())


def test_loads_wait_for_the_kernel_so_many_buffers_before(system):
    """The waits themselves: parts and buffers in every combination, against a plain count."""
    graph = fold(mlp(layers=9, width=32))
    drawn = draft(graph, Recorded().groups(graph))
    placement = Placement("hbm", {name: {"cpu.hbm": 1.0} for name in graph.structure.residents})
    for buffers in (1, 2, 3):
        for parts in (1, 2, 3):
            route = Route("hbm", placement, frozenset({"cpu.hbm"}), buffers, parts=parts)
            program = Program(drawn, route, Launch.GRAPH)
            (repeat,), steps = program.repeats, program.steps
            load, body = steps[repeat.start], range(repeat.start, repeat.stop)
            assert isinstance(load, Transfer)
            (wait,) = load.waits
            last = max(n for n in body if steps[n].name == "matmul")
            assert (wait.step, wait.back) == (last, buffers)


@settings(max_examples=40, deadline=None)
@given(
    shares=st.sampled_from([(0, 1, 0), (0.5, 0.25, 0.25), (0, 0, 1)]),
    activations=st.sampled_from([(1, 0, 0), (0, 1, 0), (0.5, 0, 0.5)]),
    parts=st.integers(1, 4),
    buffers=st.integers(1, 5),
    chunk=st.sampled_from([2_000.0, None]),
)
def test_every_combination_runs_and_overlap_never_costs(system, shares, activations, parts, buffers, chunk):
    graph = mlp(layers=7, width=64, rows=64)
    options = {"weights": shares, "activations": activations, "batches": parts, "chunk": chunk}
    ways = ({"buffers": buffers}, {"buffers": buffers + 1}, {"buffers": buffers, "overlap": False})
    one, more, apart = (
        run(offload(**options, **way).schedule(graph, system, Policy()), system).seconds for way in ways
    )
    assert 0 < one <= apart * (1 + 1e-9)
    if activations == (1, 0, 0):
        # From two places, loads ahead share the way to the GPU with what is waited for: in four parts from CPU and
        # drive, 4 buffers take 1.8 % longer than 3.
        assert more <= one * (1 + 1e-9 if max(shares) == 1 else 1.02)


def test_spill_is_told_to_change_nothing(system):
    schedule = Offload(OffloadOptions()).schedule(mlp(layers=2, width=8), system, Policy(spill=True))
    assert any("spill changes nothing" in note for note in schedule.notes)
