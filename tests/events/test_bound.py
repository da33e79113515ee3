"""The closed forms beside the event engine: never above a run, and equal to it where nothing is in the way."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_tables import tables

from hwsim.cost import Cost
from hwsim.errors import StalledError
from hwsim.events.bound import WAITS, lower_bound
from hwsim.events.fast import run_fast
from hwsim.events.table import NO_ENGINE, Region, Table, Task
from hwsim.mapper import Wait

EPS = 1e-9


@settings(max_examples=150, deadline=None)
@given(tables())
def test_no_run_is_faster_than_its_bound(made):
    assert lower_bound(made).seconds <= run_fast(made, log=False).seconds * (1 + EPS)


@settings(max_examples=60, deadline=None)
@given(tables(longest=4), st.integers(1, 4))
def test_passes_of_a_steady_table_take_the_bound_each(made, passes):
    bound = lower_bound(replace(made, steady=True)).seconds
    assert passes * bound <= run_fast(made, passes, log=False).seconds * (1 + EPS)


@settings(max_examples=100, deadline=None)
@given(tables())
def test_where_nothing_is_repeated_or_shared_the_longest_chain_is_the_run(made):
    tasks = tuple(replace(task, engine=NO_ENGINE, uses=()) for task in made.tasks)
    alone = replace(made, tasks=tasks, regions=(Region(0, len(tasks), 1),))
    try:
        seconds = run_fast(alone, log=False).seconds
    except StalledError:
        return
    assert lower_bound(alone).seconds == pytest.approx(seconds, rel=EPS, abs=EPS)


@pytest.mark.parametrize(
    ("load", "compute", "back", "seconds", "by"),
    [
        (3.0, 1.0, 2, 30.0 + 1.0, WAITS),
        (1.0, 3.0, 2, 1.0 + 30.0, WAITS),
        (1.0, 3.0, 1, 10 * 4.0, WAITS),
        (0.0, 3.0, 1, 30.0, "gpu"),
        (3.0, 0.0, 1, 30.0, "uplink"),
    ],
)
def test_loads_and_layers(load, compute, back, seconds, by):
    """Ten layers, each loaded while others compute where there are two buffers: known by hand."""
    loading = Task("load", 0, 0, 0, seconds=load, rate=1.0, uses=((0, 1.0),) if load else (), waits=(Wait(1, back),))
    layer = Task("layer", 1, 1, 0, engine=0, seconds=compute, waits=(Wait(0),))
    made = Table((loading, layer), (Region(0, 2, 10),), ("up", "gpu"), ("gpu",), ("uplink",), (Cost(),) * 2)
    bound = lower_bound(made)
    assert bound.seconds == pytest.approx(seconds) == pytest.approx(run_fast(made).seconds)
    assert bound.by == by


def test_two_streams_that_meet_in_one_link_are_bound_by_it():
    both = tuple(Task("read", i, i, 0, seconds=2.0, rate=1.0, uses=((0, 0.75),)) for i in range(2))
    made = Table(both, (Region(0, 2, 5),), ("a", "b"), (), ("uplink",), (Cost(),) * 2)
    bound = lower_bound(made)
    assert (bound.seconds, bound.by) == (15.0, "uplink")
    assert run_fast(made).seconds == pytest.approx(15.0)
