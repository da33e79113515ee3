"""Schedules as mappers make them, against recurrences worked out by hand: one device, its host, and drives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import TOY_CARD

from hwsim.engine import run
from hwsim.errors import InputError
from hwsim.graph import Kind, Repeat
from hwsim.mapper import Flow, Kernel, Placement, Schedule, Transfer, Wait
from hwsim.result import PhaseResult, Result
from hwsim.system import System
from hwsim.systemfile import load_system
from hwsim.work import Work
from hwsim.workload import Workload

RATE = 10e12  # FLOP/s of the toy's vector units
LINK = 10e9  # B/s of its link

milliseconds = st.integers(1, 9).map(lambda n: n * 1e-3)
layers = st.integers(1, 40)


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> System:
    path = tmp_path_factory.mktemp("cards") / "toy.yaml"
    path.write_text(TOY_CARD)
    return load_system({"gpu": str(path), "drive": [str(path), str(path)], "accelerator": str(path)})


def kernel(name, seconds, *waits, **more):
    return Kernel(name, Kind.ELEMENTWISE, {}, Work(vector_flops=seconds * RATE), (), waits=waits, **more)


def copy(name, seconds, *waits, source="host", target="hbm", **more):
    return Transfer(name, seconds * LINK, source, target, waits=waits, **more)


def schedule(*steps, count=1, steady=False):
    repeats = (Repeat(0, len(steps), count),) if count > 1 else ()
    return Schedule(steps, repeats, Placement("hbm"), {}, {}, (0.0,) * len(steps), steady=steady)


def seconds(system, *steps, **more):
    return run(schedule(*steps, **more), system).seconds


@settings(max_examples=40, deadline=None)
@given(milliseconds, milliseconds, layers, st.integers(1, 4))
def test_layers_stream_through_buffers(system, load, compute, count, buffers):
    """load(i) starts once load(i-1) and compute(i-buffers) have ended, compute(i) after load(i) and compute(i-1)."""
    loaded, computed = [], []
    for i in range(count):
        free = computed[i - buffers] if i >= buffers else 0.0
        loaded.append(max(loaded[-1] if loaded else 0.0, free) + load)
        computed.append(max(loaded[-1], computed[-1] if computed else 0.0) + compute)
    steps = copy("load", load, Wait(1, back=buffers)), kernel("compute", compute, Wait(0))
    assert seconds(system, *steps, count=count) == pytest.approx(computed[-1], rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(milliseconds, milliseconds, layers)
def test_steady_steps_hide_the_first_load_too(system, load, compute, count):
    steps = copy("load", load, Wait(1, back=2)), kernel("compute", compute, Wait(0))
    assert seconds(system, *steps, count=count, steady=True) == pytest.approx(count * max(load, compute), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(milliseconds, milliseconds, milliseconds, layers)
def test_experts_on_demand_and_pre_gated(system, gate, fetch, expert, count):
    """Pre-gated: the gate of one layer says what the next one needs, whose experts come meanwhile."""
    on_demand = kernel("gate", gate), copy("fetch", fetch, Wait(0)), kernel("experts", expert, Wait(1))
    assert seconds(system, *on_demand, count=count) == pytest.approx(count * (gate + fetch + expert), rel=1e-9)
    gated = fetched = done = 0.0
    for _ in range(count):
        fetched = max(fetched, gated) + fetch
        gated = done + gate
        done = max(gated, fetched) + expert
    early = kernel("gate", gate), copy("fetch", fetch, Wait(0, back=1)), kernel("experts", expert, Wait(1))
    assert seconds(system, *early, count=count) == pytest.approx(done, rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(milliseconds, milliseconds, layers, st.integers(1, 3))
def test_what_is_new_is_written_behind(system, append, store, count, staged):
    appended, stored = [], []
    for i in range(count):
        free = stored[i - staged] if i >= staged else 0.0
        appended.append(max(appended[-1] if appended else 0.0, free) + append)
        stored.append(max(appended[-1], stored[-1] if stored else 0.0) + store)
    steps = kernel("append", append, Wait(1, back=staged)), copy("store", store, Wait(0), source="hbm", target="host")
    assert seconds(system, *steps, count=count) == pytest.approx(stored[-1], rel=1e-9)


def test_drives_read_at_once_share_the_link_of_the_device(system):
    """Each could fill the device's link alone; together they take turns, fairly."""
    both = [copy(f"read {i}", 0.3, source=f"drive{i}.ddr") for i in (0, 1)]
    timeline = run(schedule(*both, kernel("attend", 0.1, Wait(0), Wait(1))), system)
    assert timeline.seconds == pytest.approx(0.6 + 0.1)
    assert [span.end for span in timeline.spans[:2]] == pytest.approx([0.6, 0.6])
    usage = {use.name: use for use in timeline.usage}
    assert usage["gpu pcie to gpu"].busy == pytest.approx(0.6)
    assert usage["gpu pcie to gpu"].nbytes == pytest.approx(2 * 0.3 * LINK)
    assert usage["gpu pcie to gpu"].waited == pytest.approx(0.6)
    assert usage["drive0.ddr"].nbytes + usage["drive1.ddr"].nbytes == usage["hbm"].nbytes


def test_devices_work_beside_each_other(system):
    """A drive attends while the GPU computes, then hands its result over."""
    steps = (
        copy("query", 0.1, source="hbm", target="drive0.ddr"),
        kernel("attend", 0.5, Wait(0), device="drive0"),
        kernel("other heads", 0.3),
        copy("result", 0.1, Wait(1), source="drive0.ddr", target="hbm"),
        kernel("project", 0.2, Wait(3)),
    )
    timeline = run(schedule(*steps), system)
    assert timeline.seconds == pytest.approx(0.1 + 0.5 + 0.1 + 0.2)
    assert timeline.tracks == ("hbm to drive0.ddr", "drive0", "gpu", "drive0.ddr to hbm", "gpu")
    assert sum(timeline.elapsed) == pytest.approx(timeline.seconds)


def test_kernels_of_a_device_take_turns_by_priority(system):
    waiting = kernel("first", 0.2)
    low, high = kernel("low", 0.1, stream="a"), kernel("high", 0.1, stream="b", priority=1)
    late = kernel("late", 0.1, stream="c", background=True, priority=9)
    spans = run(schedule(waiting, late, low, high), system).spans
    # The engine is free at the start: the highest priority goes first, what is in the background last.
    assert [span.step for span in spans] == [3, 0, 2, 1]


def test_a_kernel_is_slowed_by_copies_of_its_memory(system):
    """It alone would use 80 % of 100 GB/s; ten copies over links of 10 GB/s leave it nothing less than a fair share."""
    kernel = Kernel("read", Kind.ELEMENTWISE, {}, Work(vector_flops=RATE), (Flow("ddr", 80e9),))
    alone = run(schedule(kernel), system).seconds
    assert alone == 1.0
    copies = [copy(f"c{i}", 1.0, source="ddr", target="hbm", stream=f"s{i}") for i in range(4)]
    spans = run(schedule(kernel, *copies), system).spans
    # Five share 100 GB/s until the copies of 10 GB have ended; then the rest of the kernel's 80 GB.
    (read,) = [span for span in spans if span.step == 0]
    assert [span.end for span in spans if span.step] == pytest.approx([0.5] * 4)
    assert read.end == pytest.approx(0.5 + (80 - 10) / 80)


memories = st.sampled_from(["host", "hbm", "ddr", "drive0.ddr", "drive1.hbm", "accelerator.ddr"])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(memories, memories, st.floats(0, 1e10)), min_size=1, max_size=8), layers)
def test_what_leaves_a_memory_arrives_in_another(system, moves, count):
    steps = [Transfer(f"t{i}", nbytes, source, target) for i, (source, target, nbytes) in enumerate(moves)]
    timeline = run(schedule(*steps, count=count), system)
    seen = {use.name: use.nbytes for use in timeline.usage}
    for name in ("hbm", "ddr", "drive0.ddr", "drive1.hbm", "accelerator.ddr"):
        out = sum(nbytes for source, _, nbytes in moves if source == name)
        into = sum(nbytes for _, target, nbytes in moves if target == name)
        assert seen.get(name, 0.0) == pytest.approx(count * (out + into), rel=1e-9)
    assert all(use.busy <= timeline.seconds * (1 + 1e-9) for use in timeline.usage)


def test_a_kernel_that_reads_the_host_shares_the_link_with_copies(system):
    reading = Kernel("read", Kind.ELEMENTWISE, {}, Work(), (Flow("host", LINK),))
    assert run(schedule(reading), system).seconds == 1.0
    spans = run(schedule(reading, copy("load", 1.0)), system).spans
    assert [span.end for span in spans] == pytest.approx([2.0, 2.0])


def test_transfers_cost_the_energy_of_memories_and_links(system, tmp_path):
    made = schedule(copy("read", 1.0, source="drive0.ddr"), kernel("compute", 0.5, Wait(0)))
    timeline = run(made, system)
    part = PhaseResult("forward", 1, made, timeline)
    result = Result("toy", system.card, "by hand", Workload(), (part,), system=system)
    moved = LINK * 8 * 1e-12 * (20 + 5 + 30 + 30)
    assert result.energy == pytest.approx(4 * 50 * 1.5 + moved + 0.5 * RATE * 2e-12)
    assert result.traffic == {"drive0.ddr": LINK, "hbm": LINK}
    assert {row["kind"] for row in part.rows()} == {"transfer", "elementwise"}
    result.to_perfetto(tmp_path / "trace.json")
    events = json.loads(Path(tmp_path / "trace.json").read_text())["traceEvents"]
    tracks = {event["args"]["name"] for event in events if event["name"] == "thread_name"}
    assert tracks == {"drive0.ddr to hbm", "gpu"}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ([kernel("a", 1, Wait(3))], "step 0 'a' waits for step 3 of 0 iterations ago: steps are 0 to 0"),
        ([kernel("a", 1, Wait(0))], "step 0 'a' waits for step 0 'a', which comes later"),
        ([kernel("a", 1, device="gpo")], "unknown device 'gpo'; did you mean 'gpu'?"),
        ([copy("c", 1, source="drive0.flash")], "unknown memory 'drive0.flash'"),
        ([copy("c", float("inf"))], "step 0 'c' moves inf B"),
    ],
)
def test_steps_that_cannot_be_are_told(system, steps, said):
    with pytest.raises(InputError) as caught:
        run(schedule(*steps), system)
    assert said in str(caught.value)
