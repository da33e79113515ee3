"""Placement over tiers: against every placement of a grid, and the laws that hold for all."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.errors import DoesNotFitError
from hwsim.mappers.tiers import Placing, Tier, check_room, greedy, least_time

NEAR, SLOW = Tier("near", 4.0, 10.0, 10.0), Tier("slow", 100.0, 1.0, 0.5)
FAR = Tier("far", 100.0, 1.0, 1.0, (("wire", 2.0),))


def placing(alive, reads, writes=None, tiers=(NEAR, SLOW), awaited=None):
    alive, reads = np.array(alive, dtype=float), np.array(reads, dtype=float)
    written = np.zeros_like(reads) if writes is None else np.array(writes, dtype=float)
    waits = np.zeros(alive.shape[1], dtype=bool) if awaited is None else np.array(awaited)
    return Placing(tuple(f"item{n}" for n in range(alive.shape[1])), alive, reads, written, tiers, waits)


def grid(problem, steps):
    """Every placement in ``steps`` parts that no tier overflows, worked out one by one."""
    parts = [np.array(split) / steps for split in product(range(steps + 1), repeat=len(problem.tiers))]
    parts = [part for part in parts if abs(part.sum() - 1) < 1e-9]
    room = np.array([tier.capacity for tier in problem.tiers])
    for choice in product(parts, repeat=len(problem.items)):
        shares = np.array(choice)
        if (problem.used(shares) <= room + 1e-9).all():
            yield shares


FAR_OR_NOT = st.booleans()


@st.composite
def problems(draw, far=FAR_OR_NOT):
    items, moments, kernels = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    number = st.integers(0, 8)

    def table(rows):
        return [[draw(number) for _ in range(items)] for _ in range(rows)]

    tiers = (NEAR, FAR, SLOW) if draw(far) else (NEAR, SLOW)
    awaited = [draw(st.booleans()) for _ in range(items)]
    return placing(table(moments), table(kernels), table(kernels), tiers, awaited)


@settings(max_examples=60, deadline=None)
@given(problems())
def test_no_placement_of_a_grid_beats_the_linear_program(problem):
    best = min(problem.seconds(shares) for shares in grid(problem, 2 if len(problem.tiers) == 3 else 6))
    found = problem.seconds(least_time(problem))
    assert found <= best * (1 + 1e-4) + 1e-9


@settings(max_examples=60, deadline=None)
@given(problems(far=st.just(False)))
def test_two_tiers_one_after_the_other_are_filled_best_by_traffic_per_byte(problem):
    """With everything alive all the time and one tier at work at a time, greedy is the fractional knapsack."""
    steady = replace(problem, alive=problem.alive.max(axis=0, keepdims=True))
    reads = np.eye(len(steady.items)) * steady.reads.sum(axis=0)
    work = replace(steady, reads=reads, writes=np.zeros_like(reads))

    def serial(shares):
        return sum(
            float(tier.seconds(work.reads.sum(axis=0) @ s, 0.0)) for tier, s in zip(work.tiers, shares.T, strict=True)
        )

    assert serial(greedy(work)) <= min(map(serial, grid(work, 6))) * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("solve", [greedy, least_time])
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_all_bytes_are_placed_and_no_tier_overflows(solve, problem):
    shares = solve(problem)
    assert shares.sum(axis=1) == pytest.approx(1.0)
    assert (shares >= 0).all()
    for used, tier in zip(problem.used(shares), problem.tiers, strict=True):
        assert used <= tier.capacity * (1 + 1e-6)


@settings(max_examples=40, deadline=None)
@given(problems(), st.integers(0, 2), st.floats(1.0, 4.0))
def test_more_room_is_never_slower(problem, which, factor):
    tiers = list(problem.tiers)
    which %= len(tiers)
    tiers[which] = replace(tiers[which], capacity=tiers[which].capacity * factor)
    larger = replace(problem, tiers=tuple(tiers))
    assert larger.seconds(least_time(larger)) <= problem.seconds(least_time(problem)) * (1 + 1e-4) + 1e-9


def test_room_is_shared_over_time():
    """Two items that are never alive together fit one after the other; the third is alive throughout."""
    problem = placing([[4, 0, 1], [0, 4, 1]], [[8, 8, 1]])
    shares = greedy(problem)
    assert shares[0].tolist() == [1.0, 0.0] and shares[1].tolist() == [1.0, 0.0]
    assert shares[2].tolist() == [0.0, 1.0]


def test_links_are_shared_by_far_tiers():
    """Two drives of 1 B/s behind one wire of 1 B/s: no faster than one."""
    drives = tuple(Tier(name, 100.0, 1.0, 1.0, (("wire", 1.0),)) for name in ("a", "b"))
    problem = placing([[10]], [[10]], tiers=drives)
    assert problem.seconds(least_time(problem)) == pytest.approx(10.0)
    wider = replace(problem, tiers=tuple(replace(drive, links=(("wire", 4.0),)) for drive in drives))
    assert wider.seconds(least_time(wider)) == pytest.approx(5.0)


def test_what_kernels_wait_for_stands_between_them():
    """Copies of weights run beside kernels, copies of what kernels hand on do not: 8 s of near traffic, 4 of far."""
    tiers = (Tier("near", 80.0, 10.0, 10.0), Tier("far", 100.0, 10.0, 10.0, (("wire", 10.0),)))
    shares = np.array([[1.0, 0.0], [0.0, 1.0]])
    for awaited, seconds in ((False, 8.0), (True, 12.0)):
        problem = placing([[80, 40]], [[80, 40]], tiers=tiers, awaited=[False, awaited])
        assert problem.seconds(shares) == pytest.approx(seconds)


def test_of_far_tiers_equally_good_the_faster_is_taken():
    """What is read once is ready long before the rest, wherever it lies; the rest, waited for, stays near."""
    tiers = (NEAR, *(Tier(name, 100.0, rate, rate, ((name, 9.0),)) for name, rate in (("slow", 1.0), ("fast", 2.0))))
    problem = placing([[4, 2]], [[400, 2]], tiers=tiers, awaited=[True, False])
    assert least_time(problem)[1].tolist() == pytest.approx([0.0, 0.0, 1.0], abs=1e-6)


def test_too_much_is_said_with_sizes():
    problem = placing([[300]], [[1]])
    with pytest.raises(DoesNotFitError, match=r"near, slow.*needs 300 B, has 104 B"):
        check_room(problem, "net", "card")


@pytest.mark.parametrize("solve", [greedy, least_time])
def test_gaps_that_lives_leave_overfill_no_tier(solve):
    """One byte each, alive at moments {1}, {3}, {2, 3} and {1, 2}: one after the other, the last finds half a gap in
    each of two tiers of one byte, at different moments."""
    tiers = (Tier("near", 1.0, 10.0, 10.0), Tier("slow", 1.0, 1.0, 1.0))
    problem = placing([[1, 0, 0, 1], [0, 0, 1, 1], [0, 1, 1, 0]], [[4, 3, 4, 1]], tiers=tiers)
    check_room(problem, "net", "card")
    assert problem.used(solve(problem)) == pytest.approx([1.0, 1.0])


def test_a_tier_without_room_holds_nothing():
    problem = placing([[4]], [[4]], tiers=(replace(NEAR, capacity=0.0), SLOW))
    assert least_time(problem).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize(("back", "seconds"), [("out", 10.0), ("in", 15.0)])
def test_directions_of_a_link_are_shared_only_if_half_duplex(back, seconds):
    """10 B in at 1 B/s, 10 B out at 2 B/s."""
    tier = Tier("far", 100.0, 9.0, 9.0, (("in", 1.0),), ((back, 2.0),))
    problem = placing([[10]], [[10]], [[10]], tiers=(tier,))
    assert problem.seconds(least_time(problem)) == pytest.approx(seconds)
