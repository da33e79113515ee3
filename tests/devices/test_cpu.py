"""The CPU family on the EPYC card: overheads, cores, caches."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.card import Figure
from hwsim.device import load_device
from hwsim.devices.cpu import Cpu
from hwsim.errors import CardError
from hwsim.kernel_spec import spec_kernel

EPYC = load_device("amd-epyc-7742").card


def with_parameters(**values: float) -> Cpu:
    added = {name: Figure(value, "", "assumed", "test") for name, value in values.items()}
    return Cpu(replace(EPYC, parameters={**EPYC.parameters, **added}))


def seconds(device: Cpu, **spec: object) -> float:
    return device.estimate(spec_kernel(spec, device)).seconds


def test_a_large_product_runs_on_all_cores():
    """2·4096³ over 4.61 TFLOP/s, 5 us for the call and 5 us to start the cores."""
    cost = seconds(Cpu(EPYC), op="matmul", m=4096, n=4096, k=4096, dtype="fp32")
    assert cost == pytest.approx(2 * 4096**3 / 4.61e12 + 10e-6)


def test_small_work_stays_on_one_core():
    """A 16³ product on 1/64 of the cores takes less than starting the others."""
    assert seconds(with_parameters(op_overhead=0.0), op="matmul", m=16, n=16, k=16, dtype="fp32") < 5e-6


def test_each_call_costs_its_overhead():
    spec = {"op": "add", "numel": 1, "dtype": "fp32"}
    assert seconds(with_parameters(op_overhead=8e-6), **spec) - seconds(Cpu(EPYC), **spec) == pytest.approx(3e-6)


def test_one_core_draws_what_it_has_in_flight():
    """One row is one core's: 1 KiB per 134 ns."""
    device = with_parameters(max_bytes_in_flight_per_unit=1024)
    took = seconds(device, op="softmax", rows=1, cols=10**6, dtype="fp32")
    assert took == pytest.approx(8e6 / (1024 / 134e-9), rel=0.01)


@pytest.mark.parametrize(("numel", "level"), [(10**4, "l1"), (10**6, "l2"), (10**7, "l3"), (10**9, "ddr")])
def test_warm_operands_come_from_the_nearest_memory_that_holds_them(numel, level):
    """12 B an element against 2, 32 and 256 MiB."""
    device = Cpu(EPYC).timed(warm=True)
    traffic = device.estimate(spec_kernel({"op": "add", "numel": numel, "dtype": "fp32"}, device)).traffic
    assert next(iter(traffic)) == level
    assert traffic[level] == 12 * numel


def test_warm_is_faster_and_cold_comes_from_memory():
    spec = {"op": "add", "numel": 10**6, "dtype": "fp32"}
    assert seconds(Cpu(EPYC, warm=True), **spec) < seconds(Cpu(EPYC), **spec)


def test_lanes_that_stay_empty_cost_time():
    """n = 12 fills one and a half vectors of 8: the time of two."""
    wide, odd = (seconds(Cpu(EPYC), op="matmul", m=1, n=n, k=2048, dtype="fp32") for n in (16, 12))
    assert odd == pytest.approx(wide, rel=0.3)


def test_a_card_without_its_parameters_is_refused():
    with pytest.raises(CardError, match=r"lacks parameters.simd_width\n.*lacks parameters.thread_start"):
        Cpu(replace(EPYC, parameters={}))
