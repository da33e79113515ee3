"""The roofline family against arithmetic that fits on a napkin."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.device import load_device
from hwsim.devices.roofline import Roofline
from hwsim.errors import CardError, UnknownNameError
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Flow

CARD = load_device("sn40l").card
DEVICE = Roofline(CARD)
MATMUL = {"op": "matmul", "m": 4096, "n": 4096, "k": 4096, "dtype": "bf16"}


def test_a_large_product_takes_its_flops_over_the_peak():
    cost = DEVICE.estimate(spec_kernel(MATMUL, DEVICE))
    assert cost.seconds == pytest.approx(2 * 4096**3 / 638e12)
    assert cost.bound == "matmul"


def test_an_addition_takes_its_bytes_over_the_bandwidth():
    """Two inputs and an output of 2 B an element over 1.8 TB/s."""
    cost = DEVICE.estimate(spec_kernel({"op": "add", "numel": 10**8, "dtype": "bf16"}, DEVICE))
    assert cost.seconds == pytest.approx(6e8 / 1.8e12)
    assert (cost.bound, cost.traffic) == ("hbm", {"hbm": 6e8})


def test_energy_is_per_operation_and_per_byte():
    """0.41 pJ/FLOP and 6 pJ/bit over three operands of 32 MiB."""
    cost = DEVICE.estimate(spec_kernel(MATMUL, DEVICE))
    assert cost.joules == pytest.approx(0.41e-12 * 2 * 4096**3 + 48e-12 * 3 * 2**25)


def test_memories_overlap_and_one_memory_adds_up():
    kernel = spec_kernel({"op": "copy_d2d", "bytes": 1}, DEVICE)
    flows = (Flow("hbm", 1.8e9), Flow("hbm", 1.8e9, write=True), Flow("ddr", 0.3e9))
    cost = DEVICE.estimate(replace(kernel, flows=flows))
    assert cost.busy == {"hbm": pytest.approx(2e-3), "ddr": pytest.approx(1.5e-3)}
    assert cost.seconds == pytest.approx(2e-3)


def test_causal_attention_costs_its_triangle():
    spec = {"op": "attention_prefill", "batch": 8, "heads": 32, "kv_heads": 8, "head_dim": 128}
    spec |= {"q_len": 4096, "kv_len": 4096, "dtype": "bf16"}
    full, causal = (DEVICE.estimate(spec_kernel({**spec, "causal": mask}, DEVICE)) for mask in (False, True))
    assert causal.busy["matmul"] / full.busy["matmul"] == pytest.approx(4097 / 8192)


def test_host_bytes_go_over_the_link():
    """1 us and 31.5 MB over 31.5 GB/s; both directions at once."""
    kernel = spec_kernel({"op": "copy_d2d", "bytes": 1}, DEVICE)
    flows = (Flow("host", 31.5e6), Flow("host", 16e6, write=True))
    cost = DEVICE.estimate(replace(kernel, flows=flows))
    assert cost.seconds == pytest.approx(1e-6 + 1e-3)
    assert (cost.bound, cost.traffic) == ("pcie", {"host": 47.5e6})


def test_what_the_card_does_not_reach_is_an_error():
    kernel = spec_kernel({"op": "copy_d2d", "bytes": 1}, DEVICE)
    with pytest.raises(UnknownNameError, match="unknown memory 'hbn'; did you mean 'hbm'"):
        DEVICE.estimate(replace(kernel, flows=(Flow("hbn", 1.0),)))
    lonely = Roofline(replace(CARD, links=()))
    with pytest.raises(CardError, match="no link to the host"):
        lonely.estimate(replace(kernel, flows=(Flow("host", 1.0),)))


@pytest.mark.parametrize(
    ("op", "seconds"),
    [
        ("all_reduce", 2 * 3 * 1e-6 + 2 * 32e6 * 3 / 4 / 31.5e9),
        ("all_gather", 3 * 1e-6 + 32e6 * 3 / 31.5e9),
        ("reduce_scatter", 3 * 1e-6 + 32e6 * 3 / 4 / 31.5e9),
        ("all_to_all", 3 * 1e-6 + 32e6 * 3 / 4 / 31.5e9),
    ],
)
def test_collectives_go_round_the_ring(op, seconds):
    cost = DEVICE.estimate(spec_kernel({"op": op, "bytes": 32_000_000, "ranks": 4}, DEVICE))
    assert cost.seconds == pytest.approx(seconds)
    assert cost.bound == "p2p"


def test_dynamic_power_stays_below_the_limit():
    cost = Roofline(replace(CARD, limit=CARD.idle + 1)).estimate(spec_kernel(MATMUL, DEVICE))
    assert cost.joules == pytest.approx(1.0 * cost.seconds)
