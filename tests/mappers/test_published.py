"""What papers have published about experts, caches and drives, and what the mappers make of it."""

from __future__ import annotations

import pytest

from hwsim.claims import check_claims

HOLD = ["TRIM-1-FULL", "TRIM-3", "IN3", "IN13", "IN15"]


@pytest.mark.parametrize("claim", HOLD)
def test_published_figures_hold(claim):
    outcomes = check_claims([claim])
    assert outcomes
    assert [(one.figure, one.ratio, one.error) for one in outcomes if not one.holds] == []


def test_a_fit_explains_rows_that_it_has_not_seen():
    """The launch time fitted to Switch-Base on the GPU alone gives the throughput with experts that are fetched."""
    outcomes = {(one.claim, one.figure): one for one in check_claims(["PG4", "PG5"])}
    assert len(outcomes) == 6
    assert all(one.holds for one in outcomes.values())
