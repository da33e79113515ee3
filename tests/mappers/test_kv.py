"""The mapper kv: occupancy against caches walked token by token, bytes against closed formulas, laws."""

from __future__ import annotations

from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hwsim
from hwsim.capture import find_model
from hwsim.dtypes import dtype
from hwsim.engine import run
from hwsim.errors import InputError
from hwsim.fold import fold
from hwsim.graph import Kind, Repeat, Role
from hwsim.mapper import Policy
from hwsim.mappers.fused import Fused
from hwsim.mappers.graph_edit import GraphEdit
from hwsim.mappers.kv import Kv
from hwsim.mappers.kv_policy import KvOptions, after_prompt, capacity, kept
from hwsim.simulation import load_mapper
from hwsim.testing import check_mapper, sample_graphs

LAYERS, BATCH, KV_HEADS, HEADS, HEAD_DIM = 36, 2, 8, 32, 128


@pytest.fixture(scope="module")
def device():
    return hwsim.load_device("nvidia-h200")


def step(phase="decode", model="qwen3-4b", tokens=8191):
    return find_model(model).capture(phase).bind(batch=BATCH, prompt=tokens)


def moved(device, graph, write=None, **options):
    schedule = Kv(KvOptions(**options)).schedule(graph, device, Policy())
    return sum(
        count * flow.nbytes
        for kernel, count in zip(schedule.kernels, schedule.counts, strict=True)
        for flow in kernel.flows
        if write in (None, flow.write)
    )


def walk(steps, budget, drop):
    """The lengths of a cache that grows by one token a step and loses ``drop`` of them beyond ``budget``."""
    length, lengths = 0, []
    for _ in range(steps):
        length += 1
        if length > budget:
            length -= drop
        lengths.append(length)
    return lengths


def test_full_is_the_mapper_below(device):
    graph = step()
    assert Kv().schedule(graph, device, Policy()).kernels == Fused().schedule(graph, device, Policy()).kernels
    assert check_mapper(Kv(), device, (*sample_graphs(), graph)) == []


@pytest.mark.parametrize("budget", [64, 200])
def test_scissorhands_holds_what_a_walk_holds(budget):
    options = KvOptions(policy="scissorhands", budget=budget)
    lengths = walk(50 * budget, budget, options.dropped)[budget:]
    assert kept(50 * budget, options) == pytest.approx(mean(lengths), abs=1)
    assert capacity(50 * budget, options) == max(lengths)


@pytest.mark.parametrize(("budget", "buffer"), [(64, 16), (128, 128)])
def test_trim_holds_what_a_walk_holds(budget, buffer):
    options = KvOptions(policy="trim", budget=budget, buffer=buffer)
    lengths = walk(50 * budget, budget + buffer, buffer)[budget + buffer :]
    assert kept(50 * budget, options) == pytest.approx(mean(lengths), abs=1)


def test_a_window_saves_the_reads_of_all_older_tokens(device):
    graph = step()
    saved = moved(device, graph) - moved(device, graph, policy="window", budget=1024)
    assert saved == pytest.approx(LAYERS * BATCH * KV_HEADS * 2 * HEAD_DIM * 2 * (8192 - 1024))


def test_a_trimmed_slot_has_a_score_and_a_position(device):
    """Keys, values, a score of 4 bytes and a position of 8: 2.3 % more than keys and values alone."""
    graph = step(model="trim-kv-qwen3-4b")
    options = {"policy": "trim", "budget": 1024, "buffer": 128}
    schedule = Kv(KvOptions(**options)).schedule(graph, device, Policy())
    slots = LAYERS * BATCH * KV_HEADS * (1024 + 128)
    assert schedule.footprint["state"] == pytest.approx(slots * (2 * HEAD_DIM * 2 + 12))
    assert schedule.footprint["state"] / (slots * 4 * HEAD_DIM) == pytest.approx(1.0234, abs=1e-4)


def test_frameworks_copy_the_cache_five_times_over(device):
    """Read and written to append; read once and written four times to repeat 8 heads for 32; then read four times."""
    graph = step()
    cache = LAYERS * BATCH * KV_HEADS * 2 * HEAD_DIM * 2 * 8192
    more = moved(device, graph, kernels="eager", framework_copies=True) - moved(device, graph, kernels="eager")
    assert more == pytest.approx((2 + 1 + 4 + 3) * cache)


@pytest.mark.parametrize(("keys", "values"), [("bfp12", "model"), ("bfp12", "bfp12"), ("mxfp4", "fp8")])
def test_formats_shrink_the_cache_by_their_bits(device, keys, values):
    graph = step()
    schedule = Kv(KvOptions(keys=keys, values=values)).schedule(graph, device, Policy())
    bits = sum(dtype("bf16" if name == "model" else name).bits_per_element for name in (keys, values))
    elements = LAYERS * BATCH * KV_HEADS * HEAD_DIM * 8192
    assert schedule.footprint["state"] == pytest.approx(elements * bits / 8)


def test_narrow_caches_are_faster_and_no_faster_than_their_bytes(device):
    graph = step(tokens=32767)
    schedules = [
        Kv(KvOptions(keys=fmt, values=fmt)).schedule(graph, device, Policy()) for fmt in ("model", "fp8", "bfp12")
    ]
    seconds = [run(schedule, device, spans=False).seconds for schedule in schedules]
    cache = LAYERS * BATCH * KV_HEADS * 2 * HEAD_DIM * 2 * 32768
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] - seconds[2] > 0.7 * (1 - 4.125 / 16) * cache / device.card.main.bandwidth
    moved_bytes = sum(
        flow.nbytes * n for k, n in zip(schedules[2].kernels, schedules[2].counts, strict=True) for flow in k.flows
    )
    assert seconds[2] > moved_bytes / device.card.main.bandwidth


def test_integers_have_scales_and_zeros(device):
    graph = step()
    schedule = Kv(KvOptions(keys="int4", values="int4", group=64)).schedule(graph, device, Policy())
    elements = 2 * LAYERS * BATCH * KV_HEADS * HEAD_DIM * 8192
    assert schedule.footprint["state"] == pytest.approx(elements * (4 + 32 / 64) / 8)


def vector_work(device, graph, **options):
    schedule = Kv(KvOptions(**options)).schedule(graph, device, Policy())
    return sum(n * k.work.vector_flops for k, n in zip(schedule.kernels, schedule.counts, strict=True))


def test_what_a_step_appends_is_rounded_and_written_with_its_scales(device):
    """4 bits for each element of the new token and 32 for each group of 64 instead of 16 for each element: a minimum,
    a maximum and a rounding for each."""
    graph = step()
    new = 2 * LAYERS * BATCH * KV_HEADS * HEAD_DIM
    ints = {"keys": "int4", "values": "int4", "group": 64}
    saved = moved(device, graph, write=True) - moved(device, graph, write=True, **ints)
    assert saved == pytest.approx(new * (16 - 4 - 32 / 64) / 8)
    assert vector_work(device, graph, **ints) - vector_work(device, graph) == pytest.approx(3 * new)


def test_a_prompt_is_rounded_as_it_is_stored(device):
    graph = step("prefill", tokens=256)
    new = 2 * LAYERS * BATCH * KV_HEADS * HEAD_DIM * 256
    ints = {"keys": "int4", "values": "int4", "group": 64}
    saved = moved(device, graph, write=True) - moved(device, graph, write=True, **ints)
    assert saved == pytest.approx(new * (16 - 4 - 32 / 64) / 8)
    assert vector_work(device, graph, **ints) - vector_work(device, graph) == pytest.approx(3 * new)


def test_frameworks_unpack_with_scales(device):
    """The scales of every cached element are read, whoever unpacks."""
    graph = step()
    reads = [
        moved(device, graph, write=False, keys="int4", values="int4", group=group, framework_copies=True)
        for group in (64, 128)
    ]
    elements = 2 * LAYERS * BATCH * KV_HEADS * HEAD_DIM * 8192
    assert reads[0] - reads[1] == pytest.approx(elements * (32 / 64 - 32 / 128) / 8)


@pytest.mark.parametrize("policy", ["window", "scissorhands", "trim"])
@pytest.mark.parametrize("tokens", [100, 512, 600, 640])
def test_a_step_goes_on_from_what_a_prompt_leaves(policy, tokens):
    options = KvOptions(policy=policy, budget=512, buffer=128)
    assert after_prompt(tokens, options) == kept(tokens, options) or policy == "scissorhands"
    assert after_prompt(tokens, options) == capacity(tokens, options)


@pytest.mark.parametrize("policy", ["window", "scissorhands", "trim", "gate"])
def test_a_prompt_leaves_what_the_policy_keeps(device, policy):
    graph = step("prefill", "trim-kv-qwen3-4b", 4096)
    options = KvOptions(policy=policy, budget=512, history=32)
    schedule = Kv(options).schedule(graph, device, Policy())
    rows = 2048 if policy == "gate" else 512
    history = LAYERS * 32 * BATCH * HEADS * 512 if policy == "scissorhands" else 0
    assert schedule.footprint["state"] == pytest.approx(
        LAYERS * BATCH * KV_HEADS * rows * (4 * HEAD_DIM + 12) + history
    )


def test_compactions_cost_their_share_of_a_step(device):
    """Every 128 steps 1,024 of 1,152 slots are gathered: read, and written elsewhere."""
    graph = step(model="trim-kv-qwen3-4b")
    schedule = Kv(KvOptions(policy="trim")).schedule(graph, device, Policy())
    gathers = [kernel for kernel in schedule.kernels if kernel.kind is Kind.GATHER and "embedding" not in kernel.path]
    picked = sum(kernel.write_bytes for kernel in gathers)
    slots = LAYERS * BATCH * KV_HEADS * 1024 / 128
    assert picked == pytest.approx(slots * (4 * HEAD_DIM + 12), rel=0.02)


def test_books_are_kept_by_launches(device):
    graph = step(model="trim-kv-qwen3-4b")
    counts = [
        sum(Kv(KvOptions(policy="trim", kernels="eager", bookkeeping=n)).schedule(graph, device, Policy()).counts)
        for n in (0, 7)
    ]
    assert counts[1] - counts[0] == 7 * LAYERS


def test_models_without_caches_or_gates_are_told(device):
    result = hwsim.estimate("vit-b-16", device, mapper="kv", mapper_options={"policy": "window"})
    assert any("no key/value cache" in note for note in result.notes)
    schedule = Kv(KvOptions(policy="trim")).schedule(step(), device, Policy())
    assert any("no gate" in note for note in schedule.notes)


def test_a_gate_keeps_something():
    with pytest.raises(InputError, match="less than 1"):
        load_mapper("kv", {"policy": "gate", "drop": 1})


@settings(max_examples=60, deadline=None)
@given(
    policy=st.sampled_from(["window", "scissorhands", "trim"]),
    budgets=st.tuples(st.integers(2, 3000), st.integers(2, 3000)).map(sorted),
    tokens=st.integers(1, 9000),
    buffer=st.integers(1, 400),
)
def test_a_smaller_budget_never_keeps_more(policy, budgets, tokens, buffer):
    small, large = (KvOptions(policy=policy, budget=one, buffer=buffer, drop=0.5) for one in budgets)
    if policy != "scissorhands":  # which drops more at once the larger its budget is
        assert kept(tokens, small) <= kept(tokens, large)
    assert capacity(tokens, small) <= capacity(tokens, large)
    assert kept(tokens, large) <= capacity(tokens, large) <= tokens


@settings(max_examples=10, deadline=None)
@given(policy=st.sampled_from(["window", "trim", "gate"]), budget=st.integers(16, 4000))
def test_no_policy_reads_more_of_the_cache_than_all(device, policy, budget):
    graph = step(tokens=4095)
    options = KvOptions(policy=policy, budget=budget)
    schedule = Kv(options).schedule(graph, device, Policy())
    reads = [
        flow.nbytes
        for kernel in schedule.kernels
        if kernel.kind is Kind.ATTENTION
        for flow in kernel.flows
        if flow.role is Role.STATE
    ]
    assert sum(reads) <= BATCH * KV_HEADS * 2 * HEAD_DIM * 2 * 4096


def test_an_edit_keeps_repetitions():
    graph = fold(sample_graphs()[1])
    edit = GraphEdit(graph)
    name = edit.tensor("note", (4,), "fp32")
    edit.after(0, Kind.FILL, (), name, numel=4)
    edit.before(3, Kind.FILL, (), name, numel=4)
    edit.append(3, Kind.FILL, (), name, numel=4)
    changed = edit.graph()
    (before,) = graph.repeats
    assert changed.repeats == (Repeat(before.start, before.stop + 2, before.count, before.shared),)
    assert [op.kind for op in changed.ops].count(Kind.FILL) == 3
    assert changed.counts[-1] == 1
