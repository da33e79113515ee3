"""Placement: the nearest memory for what is used most; overflow is said, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import mlp, toy_device

from hwsim.errors import DoesNotFitError
from hwsim.fold import fold
from hwsim.liveness import usage
from hwsim.mapper import Policy
from hwsim.placement import place
from hwsim.work import work_of


def placed(graph, device, spill=False):
    graph = fold(graph)
    works = [(work_of(op, graph), count) for op, count in zip(graph.ops, graph.counts, strict=True)]
    return place(graph, works, device.card, usage(graph), Policy(spill))


def test_what_fits_stays_in_the_main_memory(tmp_path):
    graph = mlp(layers=4, width=64)
    found = placed(graph, toy_device(tmp_path))
    assert found.placement.shares == {}
    assert found.peak == {"hbm": pytest.approx(usage(graph).peak), "ddr": 0.0}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.floats(0.05, 2.0))
def test_bytes_are_conserved(tmp_path_factory, layers, room):
    graph = mlp(layers=layers, width=128)
    need = usage(graph).peak
    device = toy_device(
        tmp_path_factory.mktemp("card"),
        memories__hbm__capacity=f"{max(need * room, 40_000):.0f} B",
        memories__ddr__capacity="1 kB",
    )
    found = placed(graph, device, spill=True)
    assert sum(found.peak.values()) == pytest.approx(usage(fold(graph)).peak)
    for memory in device.card.memories:
        assert found.peak[memory.name] <= memory.capacity * (1 + 1e-12)
    assert all(sum(share.values()) == pytest.approx(1.0) for share in found.placement.shares.values())


def test_overflow_is_refused_with_sizes_or_spilled(tmp_path):
    device = toy_device(tmp_path, memories__hbm__capacity="50 kB", memories__ddr__capacity="1 kB")
    graph = mlp(layers=20, width=128)
    with pytest.raises(DoesNotFitError, match=r"needs 6\d\d.* kB, has 51"):
        placed(graph, device)
    assert "spilled to the host" in placed(graph, device, spill=True).notes[-1]


def test_the_second_tier_takes_what_is_used_least(tmp_path):
    """An unread weight goes out first."""
    graph = mlp(layers=2, width=128)
    idle = graph.tensors["w0"].__class__("idle", (128, 128), "bf16", graph.tensors["w0"].role)
    graph = graph.__class__("idle", {"idle": idle, **graph.tensors}, graph.ops)
    room = usage(graph).peak - idle.nbytes
    device = toy_device(tmp_path, memories__hbm__capacity=f"{room} B")
    found = placed(graph, device)
    assert found.placement.shares == {"idle": {"ddr": 1.0}}
    assert "overflowed from hbm to ddr" in found.notes[0]


def test_activations_that_overflow_move_over_the_link(tmp_path):
    """A tenth of them has room: nine tenths of their traffic belong to the host."""
    graph = mlp(layers=3, width=16, rows=4096)
    need = usage(graph).peak_activations
    device = toy_device(tmp_path, memories__hbm__capacity=f"{need / 10} B", memories__ddr__capacity="1 MB")
    shares = placed(graph, device, spill=True).placement.of("h1")
    assert shares == {"hbm": pytest.approx(0.1), "host": pytest.approx(0.9)}
