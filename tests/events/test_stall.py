"""Whatever the state in which a run stops, there is a sentence about it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from task_tables import tables

from hwsim.errors import StalledError
from hwsim.events.stall import Head, stalled


@settings(max_examples=200, deadline=None)
@given(tables(longest=3), st.data())
def test_every_state_has_a_sentence(made, data):
    counts = [region.count for region in made.regions for _ in range(region.start, region.stop)]
    done = [data.draw(st.integers(0, count)) for count in counts]
    tasks = data.draw(st.lists(st.integers(0, len(counts) - 1), unique_by=lambda number: made.tasks[number].stream))
    heads = [Head(number, data.draw(st.integers(0, counts[number] - 1))) for number in tasks]
    error = stalled(made, heads, done)
    assert isinstance(error, StalledError)
    assert str(error).startswith("the schedule does not advance: ")
    assert not str(error).endswith(": ")
