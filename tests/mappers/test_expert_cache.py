"""Caches of experts: simulated against a plain walk and against closed forms; laws of caches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.mappers.expert_cache import Demand, ExpertCache, asks, whole_fetches

LAYERS = [Demand(16, 1), Demand(8, 3), Demand(16, 1)]


def plain_misses(asked, capacity, policy):
    """Misses of every step and layer: a list of experts, searched and sorted anew each time."""
    held: list[tuple[int, int]] = []
    used, times, entered = {}, {}, {}
    clock, misses = 0, []
    for step in zip(*asked, strict=True):
        for layer, row in enumerate(step):
            for expert in np.flatnonzero(row):
                item, clock = (layer, int(expert)), clock + 1
                used[item], times[item] = clock, times.get(item, 0) + 1
                if item in held:
                    continue
                misses.append(layer)
                if len(held) == capacity:
                    order = {
                        "lru": lambda one: used[one],
                        "lfu": lambda one: (times[one], used[one]),
                        "lifo": lambda one: -entered[one],
                    }[policy]
                    held.remove(min(held, key=order))
                held.append(item)
                entered[item] = clock
    return misses


@pytest.mark.parametrize("policy", ["lru", "lfu", "lifo"])
@pytest.mark.parametrize("capacity", [1, 7, 39])
def test_simulation_equals_a_plain_walk(policy, capacity):
    steps = 60
    asked = [asks(demand, 2 * steps, np.random.default_rng([3, n])) for n, demand in enumerate(LAYERS)]
    missed = ExpertCache(capacity, policy).misses(LAYERS, 2 * steps, 3)
    everything = plain_misses(asked, capacity, policy)
    first_half = plain_misses([rows[:steps] for rows in asked], capacity, policy)
    expected = [(everything.count(layer) - first_half.count(layer)) / steps for layer in range(3)]
    assert missed == pytest.approx(expected)


@pytest.mark.parametrize("policy", ["lru", "lfu"])
@pytest.mark.parametrize("skew", [0.0, 0.8, 1.2])
@pytest.mark.parametrize("capacity", [24, 96, 300])
def test_closed_forms_match_the_simulation(policy, skew, capacity):
    layers = [Demand(64, 1, skew) for _ in range(6)]
    cache = ExpertCache(capacity, policy)
    assert sum(cache.expected_misses(layers)) == pytest.approx(sum(cache.misses(layers, 6000, 0)), abs=0.25)


def test_uniform_requests_hit_in_proportion_to_the_capacity():
    layers = [Demand(128, 1) for _ in range(12)]
    for policy in ("lru", "lfu", "lifo"):
        assert ExpertCache(384, policy).expected_misses(layers) == pytest.approx([0.75] * 12, rel=1e-6)


@pytest.mark.parametrize(("experts", "distinct"), [(8, 8.0), (64, 62.9), (128, 110.8)])
def test_distinct_experts_of_256_tokens(experts, distinct):
    """E(1-(1-1/E)^256), as the encoder of the artifact of Pre-gated MoE sees them."""
    demand = Demand(experts, 256)
    assert demand.distinct == pytest.approx(experts * (1 - (1 - 1 / experts) ** 256))
    assert demand.distinct == pytest.approx(distinct, abs=0.05)
    drawn = asks(demand, 4000, np.random.default_rng(1)).sum(axis=1).mean()
    assert drawn == pytest.approx(demand.distinct, rel=0.01)


def test_skewed_choices_touch_fewer_experts():
    assert [Demand(64, 64, skew).distinct for skew in (0, 0.5, 1, 2)] == sorted(
        (Demand(64, 64, skew).distinct for skew in (0, 0.5, 1, 2)), reverse=True
    )


def test_nothing_cached_misses_all_and_everything_cached_nothing():
    assert ExpertCache(0).misses(LAYERS, 100, 0) == tuple(demand.distinct for demand in LAYERS)
    assert ExpertCache(40).misses(LAYERS, 400, 0) == (0.0, 0.0, 0.0)
    assert ExpertCache(40).expected_misses(LAYERS) == (0.0, 0.0, 0.0)


@settings(max_examples=40, deadline=None)
@given(
    capacities=st.tuples(st.integers(0, 45), st.integers(0, 45)).map(sorted),
    skew=st.floats(0, 2),
    seed=st.integers(0, 99),
    policy=st.sampled_from(["lru", "lfu"]),
)
def test_a_larger_cache_never_misses_more(capacities, skew, seed, policy):
    """LRU holds all that a smaller LRU holds, token by token; what no cache misses is known, and not drawn."""
    layers = [Demand(16, 2, skew), Demand(24, 1, skew)]
    small, large = (sum(ExpertCache(one, policy).misses(layers, 200, seed)) for one in capacities)
    if policy == "lru" and capacities[0] > 0:
        assert large <= small + 1e-9
    expected = [sum(ExpertCache(one, policy).expected_misses(layers)) for one in capacities]
    assert expected[1] <= expected[0] + 1e-6


@given(st.lists(st.floats(0, 200), min_size=1, max_size=30))
def test_whole_fetches_are_as_many_as_expected(expected):
    fetched = whole_fetches(expected)
    assert sum(fetched) == pytest.approx(sum(expected), abs=1e-6)
    assert fetched[0] == expected[0]
    assert all(count == int(count) for count in fetched[1:-1])
    assert all(abs(count - mean) < 2 for count, mean in zip(fetched, expected, strict=True))
