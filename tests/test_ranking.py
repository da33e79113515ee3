"""Rank order: pairs as a double loop finds them, and the order of competing designs on the shipped measurements."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.measurements import read_measurements
from hwsim.ranking import DIFFERENCE, MOST_ROWS, SAME_WORK, RankOrder, rank_order
from hwsim.validation import Predictors, compare_measurements, error_table

FIGURES = st.floats(1.0, 4.0)
ROWS = st.lists(st.tuples(FIGURES, FIGURES, st.sampled_from([0.0, 1.0, 1.05, 2.0]), FIGURES), max_size=8)
LEAST_PAIRS, WANTED = 20, 0.95
SHORT_OF_IT = {"convolution": 0.87, "elementwise": 0.92}  # families that fall short on some card, and where they stand


def pair_by_pair(rows):
    pairs = right = 0
    for i, (one, guess, flops, nbytes) in enumerate(rows):
        for other, other_guess, other_flops, other_bytes in rows[:i]:
            works = ((flops, other_flops), (nbytes, other_bytes))
            alike = any(min(work) > 0 and max(work) <= (1 + SAME_WORK) * min(work) for work in works)
            if alike and max(one, other) > (1 + DIFFERENCE) * min(one, other):
                pairs += 1
                right += (one < other and guess < other_guess) or (one > other and guess > other_guess)
    return RankOrder(pairs, right)


@settings(deadline=None)
@given(ROWS)
def test_pairs_are_those_of_a_double_loop(rows):
    assert rank_order(*np.array(rows, dtype=float).reshape(-1, 4).T) == pair_by_pair(rows)


def test_nothing_competes_with_nothing():
    assert np.isnan(RankOrder(0, 0).share)
    assert RankOrder(4, 3).share == 0.75


def test_many_rows_are_thinned_out():
    count = 3 * MOST_ROWS
    figures = np.linspace(1.0, 2.0, count)
    found = rank_order(figures, figures, np.ones(count), np.ones(count))
    assert 0 < found.pairs <= MOST_ROWS**2 / 2
    assert found.share == 1.0


@pytest.mark.parametrize("name", ["nvidia-h200", "nvidia-h100-sxm"])
def test_competing_designs_are_put_in_order(name):
    """On rows that no constant was fitted to, families of kernels with enough pairs, cold and warm."""
    file = read_measurements(name)
    table = error_table(compare_measurements(file, Predictors.of(name)))
    counted = table[(table["quantity"] == "seconds") & (table["pairs"] >= LEAST_PAIRS)]
    assert len(counted) >= 6
    families = counted.groupby("family")[["right_order", "pairs"]].apply(
        lambda rows: (rows["right_order"] * rows["pairs"]).sum() / rows["pairs"].sum()
    )
    for family, share in families.items():
        assert share >= SHORT_OF_IT.get(family, WANTED), family
