"""The compiled engine against the SimPy one, folded runs against those written out, over random task graphs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_tables import tables

from hwsim.events.fast import run_fast
from hwsim.events.reference import run_reference

PARTS = ("elapsed", "engine_busy", "engine_waited", "resource_busy", "resource_waited")


def written_out(outcome):
    """Every execution, those that were folded too, by task and start."""
    spans, position = [], 0
    for replay in outcome.replays:
        spans += outcome.executions[position : replay.start]
        window = outcome.executions[replay.start : replay.stop]
        spans += [
            type(one)(one.task, one.start + shift * replay.period, one.end + shift * replay.period)
            for shift in range(replay.times + 1)
            for one in window
        ]
        position = replay.stop
    spans += outcome.executions[position:]
    return sorted((one.task, one.start, one.end) for one in spans)


def assert_equal(one, other):
    assert one.seconds == pytest.approx(other.seconds, rel=1e-9)
    for part in PARTS:
        assert getattr(one, part) == pytest.approx(getattr(other, part), rel=1e-9, abs=1e-9 * one.seconds), part
    first, second = written_out(one), written_out(other)
    assert [task for task, *_ in first] == [task for task, *_ in second]
    for ours, theirs in zip(first, second, strict=True):
        assert ours[1:] == pytest.approx(theirs[1:], rel=1e-9, abs=1e-9 * one.seconds)


@settings(max_examples=100, deadline=None)
@given(tables(), st.integers(1, 2))
def test_the_fast_engine_equals_the_reference(table, passes):
    assert_equal(run_fast(table, passes, folding=False), run_reference(table, passes))


@settings(max_examples=100, deadline=None)
@given(tables(longest=100), st.integers(1, 3))
def test_folded_runs_equal_those_written_out(table, passes):
    assert_equal(run_fast(table, passes), run_fast(table, passes, folding=False))
