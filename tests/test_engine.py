"""The engine: host and device, repetitions skipped exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.cost import Cost
from hwsim.engine import run, unrolled
from hwsim.graph import Kind, Repeat
from hwsim.mapper import Kernel, Placement, Schedule
from hwsim.work import Work


class Stub:
    """Takes the seconds that the kernel's attributes say."""

    def estimate(self, kernel):
        return Cost(kernel.attrs["device"], bound="stub")

    def host_seconds(self, kernel):
        return kernel.attrs["host"]


def schedule(times, repeats=()):
    kernels = tuple(Kernel("k", Kind.COPY, {"device": d, "host": h}, Work(), ()) for d, h in times)
    return Schedule(kernels, tuple(repeats), Placement("hbm"), {}, {})


def by_hand(times):
    host = device = 0.0
    for d, h in times:
        host += h
        device = max(host, device) + d
    return device


seconds = st.floats(1e-7, 1e-3)
lists = st.lists(st.tuples(seconds, st.one_of(st.just(0.0), seconds)), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(lists, lists, lists, st.integers(1, 60))
def test_folded_equals_unfolded(before, body, after, count):
    """Host-bound, device-bound and mixed bodies, with whatever lead the host had."""
    repeat = Repeat(len(before), len(before) + len(body), count)
    folded = schedule(before + body + after, [repeat])
    timeline = run(folded, Stub())
    assert timeline.seconds == pytest.approx(by_hand(before + body * count + after), rel=1e-9)
    assert sum(timeline.elapsed) == pytest.approx(timeline.seconds, rel=1e-9)
    flat = replace(folded, steps=tuple(unrolled(folded)), repeats=())
    whole = run(flat, Stub())
    assert whole.seconds == pytest.approx(timeline.seconds, rel=1e-9)
    assert len(timeline.spans) == len(whole.spans)
    for ours, theirs in zip(timeline.spans, whole.spans, strict=True):
        assert ours.start == pytest.approx(theirs.start, rel=1e-6, abs=1e-15)


def test_a_host_that_runs_ahead_is_hidden():
    """A long kernel first: the issues of the short ones behind it cost nothing."""
    times = [(1.0, 0.1)] + [(0.01, 0.1)] * 5
    assert run(schedule(times), Stub()).seconds == pytest.approx(0.1 + 1.0 + 0.05)


def test_a_slow_host_sets_the_pace():
    assert run(schedule([(0.01, 0.1)] * 5), Stub()).seconds == pytest.approx(0.5 + 0.01)


def test_no_two_kernels_at_once():
    spans = run(schedule([(0.3, 0.1), (0.1, 0.4), (0.2, 0.0)]), Stub()).spans
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))


class Counting(Stub):
    """Takes many kernels at once and remembers them."""

    def __init__(self):
        self.asked = []

    def estimate_all(self, kernels):
        self.asked.append(tuple(kernels))
        return [self.estimate(kernel) for kernel in kernels]


def test_kernels_alike_are_estimated_once_and_all_at_once():
    times = [(1e-6, 0.0), (2e-6, 0.0), (1e-6, 0.0), (1e-6, 1e-7)]
    device = Counting()
    timeline = run(schedule(times), device)
    assert timeline == run(schedule(times), Stub())
    assert [[kernel.attrs["device"] for kernel in asked] for asked in device.asked] == [[1e-6, 2e-6, 1e-6]]


def test_a_steady_repetition_is_kept_once():
    timeline = run(schedule([(1e-6, 0.0)] * 3, [Repeat(1, 2, 1000)]), Stub())
    assert sum(len(stretch.spans) for stretch in timeline.stretches) < 10
    assert len(timeline.spans) == 1002
    assert run(schedule([(1e-6, 0.0)] * 3), Stub(), spans=False).spans == ()
