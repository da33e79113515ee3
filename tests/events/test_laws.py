"""What holds of every run, whatever the schedule, and where a faster machine may be slower."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_tables import RESOURCES, tables, tasks

from hwsim.cost import Cost
from hwsim.errors import StalledError
from hwsim.events.fast import run_fast
from hwsim.events.reference import run_reference
from hwsim.events.shares import speeds
from hwsim.events.table import NO_ENGINE, Region, Table, Task
from hwsim.mapper import Wait

EPS = 1e-9
ONE = Region(0, 1, 1)


def table(*made, counts=(1,), streams=None):
    """A table of one region of tasks, by default each in a stream of its own."""
    placed = [task if streams is None else replace(task, stream=streams[i]) for i, task in enumerate(made)]
    names = tuple(f"s{i}" for i in range(1 + max(task.stream for task in placed)))
    engines = tuple(f"e{i}" for i in range(1 + max((task.engine for task in placed), default=-1)))
    resources = tuple(f"r{i}" for i in range(1 + max((r for t in placed for r, _ in t.uses), default=-1)))
    region = Region(0, len(placed), counts[0])
    return Table(tuple(placed), (region,), names, engines, resources, (Cost(),) * len(placed))


active = st.lists(tasks(0, ONE), min_size=1, max_size=8)


@settings(max_examples=100, deadline=None)
@given(active)
def test_bandwidth_is_shared_max_min_fairly_and_never_left_idle(made):
    """No resource above its bandwidth; who is slowed uses a full resource on which, of its rank, nobody has more."""
    speed, held = speeds(made, RESOURCES)
    full = [sum(u * speed[i] for i, task in enumerate(made) for r, u in task.uses if r == n) for n in range(RESOURCES)]
    assert all(used <= 1 + EPS for used in full)
    for i, task in enumerate(made):
        assert 0 <= speed[i] <= 1
        if speed[i] < 1:
            assert held[i] in [resource for resource, _ in task.uses]
            others = [
                j
                for j, other in enumerate(made)
                if held[i] in [resource for resource, _ in other.uses] and speed[j] > 0
            ]
            above = sum(u * speed[j] for j in others for r, u in made[j].uses if r == held[i])
            assert above == pytest.approx(1, rel=EPS)
            assert all(made[j].rank <= task.rank for j in others)
            rates = [speed[j] * made[j].rate for j in others if made[j].rank == task.rank]
            assert speed[i] * task.rate >= max(rates, default=0) * (1 - EPS)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_no_engine_is_in_two_places_and_every_byte_is_moved_once(made):
    outcome = run_fast(made, folding=False)
    counts = [region.count for region in made.regions for _ in range(region.start, region.stop)]
    for engine in range(len(made.engines)):
        spans = sorted((one.start, one.end) for one in outcome.executions if made.tasks[one.task].engine == engine)
        assert all(early[1] <= late[0] * (1 + EPS) + EPS for early, late in itertools.pairwise(spans))
    for resource, busy in enumerate(outcome.resource_busy):
        asked = sum(
            count * use * task.seconds
            for task, count in zip(made.tasks, counts, strict=True)
            for used, use in task.uses
            if used == resource
        )
        assert busy == pytest.approx(asked, rel=EPS, abs=EPS)
        assert busy <= outcome.seconds * (1 + EPS)
    assert sum(outcome.elapsed) == pytest.approx(outcome.seconds, rel=EPS)
    assert len(outcome.executions) == sum(counts)


@settings(max_examples=60, deadline=None)
@given(tables())
def test_nothing_starts_before_what_it_waits_for(made):
    outcome = run_fast(made, folding=False)
    ends = {}
    starts = {}
    for one in sorted(outcome.executions, key=lambda one: one.start):
        ends.setdefault(one.task, []).append(one.end)
        starts.setdefault(one.task, []).append(one.start)
    for number, task in enumerate(made.tasks):
        for turn, start in enumerate(starts[number]):
            for wait in task.waits:
                needed = made.needed(number, wait, turn)
                assert needed <= 0 or sorted(ends[wait.step])[needed - 1] <= start * (1 + EPS) + EPS


@settings(max_examples=60, deadline=None)
@given(tables(), st.permutations(range(4)), st.permutations(range(2)), st.permutations(range(3)))
def test_the_order_of_events_of_equal_time_does_not_matter(made, streams, engines, resources):
    """Streams, engines and resources are looked at in the order of their numbers: any other gives the same run."""
    moved = tuple(
        replace(
            task,
            stream=streams[task.stream],
            engine=task.engine if task.engine == NO_ENGINE else engines[task.engine],
            uses=tuple((resources[resource], use) for resource, use in task.uses),
        )
        for task in made.tasks
    )
    one, other = run_fast(made, log=False), run_fast(replace(made, tasks=moved), log=False)
    assert other.seconds == pytest.approx(one.seconds, rel=EPS)
    assert other.elapsed == pytest.approx(one.elapsed, rel=EPS, abs=EPS)
    assert [other.resource_busy[place] for place in resources] == pytest.approx(one.resource_busy, rel=EPS, abs=EPS)


def reads(requests, drives, slots, link, latency):
    """Equal reads dealt out to ``drives`` and to ``slots`` of each, which meet in one link ``link`` drives wide."""
    made, streams = [], []
    for number in range(requests):
        uses = ((number % drives, min(1.0, link)), (drives, min(1.0, 1 / link)))
        seconds = max(1.0, 1 / link)
        made.append(Task("read", number, 0, 0, latency=latency, seconds=seconds, rate=1 / seconds, uses=uses))
        streams.append(number % drives * slots + number // drives % slots)
    return run_fast(table(*made, streams=streams), log=False).seconds


few = st.integers(1, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2), few, few, st.floats(0.3, 6), st.sampled_from([0.0, 0.3, 2.0]))
def test_more_drives_slots_or_links_never_slow_reads_in_whole_rounds(rounds, drives, slots, link, latency):
    """Every round takes the latency, then what the drives or the link take for its reads."""
    requests = rounds * drives * (drives + 1) * slots * (slots + 1)
    for n, k, width in (
        (drives, slots, link),
        (drives + 1, slots, link),
        (drives, slots + 1, link),
        (drives, slots, 9),
    ):
        known = requests / (n * k) * (latency + max(k, n * k / width))
        assert reads(requests, n, k, width, latency) == pytest.approx(known, rel=EPS)
        assert known <= requests / (drives * slots) * (latency + max(slots, drives * slots / link)) * (1 + EPS)


def test_another_slot_may_slow_reads_that_do_not_come_out_even():
    """Nine reads of two drives behind a link 1.5 drives wide: fair shares delay the drive that has one more."""
    assert reads(9, 2, 3, 1.5, 0.0) == pytest.approx(6)
    assert reads(9, 2, 4, 1.5, 0.0) > 6.3


def test_a_faster_load_may_slow_what_shares_an_engine():
    """Graham's anomaly: whoever is ready first gets the engine, be it the wrong one."""

    def seconds(first_load):
        long = Task("long", 2, 2, 0, engine=0, seconds=10, waits=(Wait(0),))
        short = Task("short", 3, 3, 0, engine=0, seconds=1, waits=(Wait(1),))
        after = Task("after", 4, 1, 0, seconds=10, waits=(Wait(3),))
        loads = Task("a", 0, 0, 0, seconds=first_load), Task("b", 1, 1, 0, seconds=2)
        return run_reference(table(*loads, long, short, after)).seconds

    assert seconds(first_load=3) == 13
    assert seconds(first_load=1) == 22


@pytest.mark.parametrize("run", [run_fast, run_reference])
def test_what_cannot_advance_says_what_waits_for_what(run):
    ring = table(
        Task("load", 0, 0, 0, seconds=1, waits=(Wait(1),)),
        Task("compute", 1, 1, 0, seconds=1, waits=(Wait(3),)),
        Task("other", 2, 0, 0, seconds=1),
        Task("store", 3, 0, 0, seconds=1),
    )
    with pytest.raises(StalledError) as caught:
        run(ring)
    assert str(caught.value) == (
        "the schedule does not advance: step 0 'load' (iteration 0) waits for step 1 'compute'; "
        "step 1 'compute' (iteration 0) waits for step 3 'store'; "
        "step 3 'store' comes after step 0 'load' (iteration 0) in stream 's0'"
    )


def test_a_lone_task_takes_exactly_its_time():
    for seconds in (0.1, 1 / 3, 7e-7, 123.456):
        lone = Task("lone", 0, 0, 0, engine=0, seconds=seconds, rate=1e9 / 3, uses=((0, 0.999),))
        assert run_fast(table(lone)).seconds == seconds == run_reference(table(lone)).seconds


def test_background_takes_what_is_left():
    front = Task("front", 0, 0, 0, seconds=2, rate=10, uses=((0, 0.75),))
    back = Task("back", 1, 1, 1, seconds=1, rate=10, uses=((0, 1.0),))
    outcome = run_fast(table(front, back))
    assert [(one.start, one.end) for one in outcome.executions] == [(0, 2), (0, 2.5)]
    assert outcome.resource_waited == [pytest.approx(1.5)]


def test_a_kernel_slows_down_by_the_share_that_it_is_denied():
    """It would use 80 % of a memory alone; with one copy that could take it all each gets half: 5/8 of its speed."""
    kernel = Task("kernel", 0, 0, 0, engine=0, seconds=1, rate=8, uses=((0, 0.8),))
    copy = Task("copy", 1, 1, 0, seconds=10, rate=10, uses=((0, 1.0),))
    outcome = run_fast(table(kernel, copy))
    (ended,) = (one.end for one in outcome.executions if one.task == 0)
    assert ended == pytest.approx(1.6)
    assert outcome.seconds == pytest.approx(1.6 + (10 - 0.8))
