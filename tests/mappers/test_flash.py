"""Flash: feed-forward layers found by structure, neurons loaded on demand; volumes and times by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import mlp, toy_device

import hwsim
from hwsim.capture import find_model
from hwsim.claims import check_claims
from hwsim.errors import DoesNotFitError, InputError
from hwsim.fold import fold, unfold
from hwsim.graph import Role
from hwsim.mapper import Flow, Kernel, Policy, Transfer
from hwsim.mappers.feed_forward import find_feed_forwards
from hwsim.mappers.flash import Flash, FlashOptions
from hwsim.work import Pattern

MLPS = {"opt-6.7b": (32, 4096, 16384, 2), "falcon-7b": (32, 4544, 18176, 2), "llama-2-7b": (32, 4096, 11008, 3)}


def decode(model, prompt=128):
    return fold(find_model(model).capture("decode")).bind(batch=1, prompt=prompt)


@pytest.fixture(scope="module")
def m1():
    return hwsim.load_device("apple-m1-max")


@pytest.mark.parametrize("model", MLPS)
def test_feed_forward_layers_are_found_by_their_shape(model):
    layers, width, hidden, matrices = MLPS[model]
    graph = decode(model)
    (found,) = find_feed_forwards(graph)
    assert (found.width, found.hidden, found.matrices, found.tokens) == (width, hidden, matrices, 1)
    nbytes = sum(graph.nbytes[graph.storage(name)] for name in dict.fromkeys(found.weights))
    assert nbytes == matrices * width * hidden * 2
    assert len(find_feed_forwards(unfold(graph))) == layers


def test_attention_and_mixtures_are_no_feed_forward_layers():
    assert find_feed_forwards(decode("mixtral-8x7b")) == ()
    assert find_feed_forwards(mlp()) == ()


def test_a_drive_takes_a_time_per_command_and_per_byte(m1):
    """The two rates that the constants are fitted to, and the cap of long reads."""

    def rate(chunk):
        flow = Flow("flash", 1e9, pattern=Pattern.GATHER, granule=chunk)
        return 1e9 / m1.serve(flow).seconds

    assert rate(8192) == pytest.approx(1.25e9, rel=1e-3)
    assert rate(16384) == pytest.approx(2.25e9, rel=1e-3)
    assert rate(2**20) == pytest.approx(6.1e9)
    assert 1e9 / m1.serve(Flow("flash", 1e9)).seconds == pytest.approx(6.1e9)


class TestSteps:
    """One decode step of OPT-6.7B."""

    def schedule(self, device, **options):
        return Flash(FlashOptions(**options)).schedule(decode("opt-6.7b"), device, Policy())

    def test_what_is_loaded(self, m1):
        mlps = 32 * 2 * 4096 * 16384 * 2
        schedule = self.schedule(m1, loaded=0.024, kept=0.24, rank=240)
        pairs = list(zip(schedule.steps, schedule.counts, strict=True))
        loads = [(step, count) for step, count in pairs if isinstance(step, Transfer)]
        assert sum(step.nbytes * count for step, count in loads) == pytest.approx(0.024 * mlps)
        assert {step.granule for step, _ in loads} == {2 * 4096 * 2}
        assert {step.granule for step in self.schedule(m1, bundled=False).transfers} == {4096 * 2}
        assert schedule.peak["flash"] == mlps
        inserted = [(step, count) for step, count in pairs if step.path == "window"]
        assert sum(step.nbytes * count for step, count in inserted) == pytest.approx(4 * 0.024 * mlps)
        plain = hwsim.estimate("opt-6.7b", m1, phase="decode", prompt=128, mapper="auto").phases[0].schedule
        predictors = 32 * 240 * (4096 + 16384) * 2
        assert max(schedule.in_use) == pytest.approx(sum(schedule.peak.values()))
        weights = sum(nbytes for role, nbytes in plain.footprint.items() if role == Role.WEIGHT)
        assert schedule.footprint[Role.WEIGHT] == pytest.approx(weights + predictors)
        assert schedule.peak["dram"] == pytest.approx(plain.peak["dram"] - 0.76 * mlps + predictors)

    def test_only_active_neurons_compute(self, m1):
        dense, thin = self.schedule(m1, active=1.0, window=0), self.schedule(m1, active=0.1, rank=240)
        mlp_flops = 32 * 2 * 2 * 4096 * 16384

        def flops(schedule):
            pairs = zip(schedule.steps, schedule.counts, strict=True)
            return sum(n * step.work.matmul_flops for step, n in pairs if isinstance(step, Kernel))

        predictors = 32 * 2 * 240 * (4096 + 16384)
        assert flops(dense) == pytest.approx(decode("opt-6.7b").matmul_flops)
        assert flops(thin) == pytest.approx(flops(dense) - 0.9 * mlp_flops + predictors)

    def test_a_layer_is_predicted_loaded_inserted_computed(self, m1):
        (repeat,) = self.schedule(m1, rank=64).repeats
        body = self.schedule(m1, rank=64).steps[repeat.start : repeat.stop]
        names = [step.name for step in body]
        first = names.index("predict")
        assert names[first : first + 4] == ["predict", "predict", "load neurons", "insert neurons"]
        for later, earlier in ((first + 2, first + 1), (first + 3, first + 2), (first + 4, first + 3)):
            assert repeat.start + earlier in [wait.step for wait in body[later].waits]

    def test_spill_is_told_to_change_nothing(self, m1):
        schedule = Flash().schedule(decode("opt-6.7b"), m1, Policy(spill=True))
        assert any("spill changes nothing" in note for note in schedule.notes)

    def test_memory_too_small_is_said(self):
        small = hwsim.load_device("apple-m1-max", {"memories.dram.capacity": "4 GB"})
        with pytest.raises(DoesNotFitError, match=r"needs .* GB, has 4 GB"):
            self.schedule(small)


@given(st.floats(0.01, 1), st.integers(0, 20), st.floats(0, 1), st.integers(1, 8))
def test_a_wider_window_loads_no_more_and_keeps_no_less(active, window, growth, tokens):
    narrow, wide = (FlashOptions(active=active, window=w, growth=growth) for w in (window, window + 1))
    assert 0 <= narrow.load(tokens) <= narrow.used(tokens) + 1e-12
    assert narrow.resident(tokens) <= wide.resident(tokens) <= 1
    if window:
        assert wide.load(tokens) <= narrow.load(tokens) + 1e-12


def test_a_prompt_uses_more_neurons_than_a_token(m1):
    prefill = fold(find_model("opt-6.7b").capture("prefill")).bind(batch=1, prompt=64)
    schedule = Flash(FlashOptions(active=0.1, window=0)).schedule(prefill, m1, Policy())
    loaded = sum(s.nbytes * n for s, n in zip(schedule.steps, schedule.counts, strict=True) if isinstance(s, Transfer))
    assert loaded == pytest.approx(0.8 * 32 * 2 * 4096 * 16384 * 2)


def test_models_and_devices_it_is_not_for(m1, tmp_path):
    with pytest.raises(InputError, match="'mlp' has no feed-forward layer"):
        Flash().schedule(mlp(), m1, Policy())
    with pytest.raises(InputError, match=r"has no drive for .*: take t4-208gb"):
        Flash().schedule(decode("opt-6.7b"), toy_device(tmp_path), Policy())


def test_roles_stay(m1):
    schedule = Flash(FlashOptions(rank=8)).schedule(decode("opt-6.7b"), m1, Policy())
    weights = sum(
        n * flow.nbytes
        for step, n in zip(schedule.steps, schedule.counts, strict=True)
        if isinstance(step, Kernel) and step.path != "window"
        for flow in step.flows
        if flow.role is Role.WEIGHT
    )
    graph = decode("opt-6.7b")
    others = graph.bytes_of(Role.WEIGHT) - 32 * 2 * 4096 * 16384 * 2 - graph.nbytes["positions.weight"]
    predictors = 32 * 8 * (4096 + 16384) * 2
    assert weights == pytest.approx(others + 0.1 * 32 * 2 * 4096 * 16384 * 2 + predictors, rel=1e-3)


@pytest.mark.parametrize("claim", ["LF1", "LF2-IO", "LF6-IO", "LF7-IO", "LF8-IO", "LF9-IO"])
def test_published_times_hold(claim):
    """Five rows from two constants, and other models with nothing refitted."""
    assert [(outcome.figure, outcome.ratio) for outcome in check_claims([claim]) if not outcome.holds] == []
