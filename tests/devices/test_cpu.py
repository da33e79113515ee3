"""The CPU family on the EPYC card: overheads, cores, caches, and what its constants do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hwsim.card import Figure
from hwsim.device import Replay, estimate_all, load_device
from hwsim.devices.cpu import CONSTANTS, Cpu
from hwsim.devices.cpu.constants import TYPICAL
from hwsim.devices.cpu.traffic import State
from hwsim.errors import CardError
from hwsim.fitting import Calibratable, Sample, fit
from hwsim.graph import Role
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Launch
from hwsim.testing import check_device, roofline_seconds, sample_specs

EPYC = load_device("amd-epyc-7742").card
MATMUL = {"op": "matmul", "m": 256, "n": 512, "k": 128, "batch": 1, "dtype": "fp32"}


def with_parameters(**values: float) -> Cpu:
    added = {name: Figure(value, "", "assumed", "test") for name, value in values.items()}
    return Cpu(replace(EPYC, parameters={**EPYC.parameters, **added}))


def typical(**changes: object) -> Cpu:
    """A CPU with the constants of real libraries, on the card with some figures changed."""
    return Cpu(load_device("amd-epyc-7742", changes).card).with_constants(TYPICAL)


def seconds(device: Cpu, launch: Launch = Launch.GRAPH, **spec: object) -> float:
    return device.estimate(spec_kernel(spec, device, launch)).seconds


def test_a_large_product_runs_on_all_cores():
    """2·4096³ over 4.61 TFLOP/s, 5 us for the call and 5 us to start the cores."""
    cost = seconds(Cpu(EPYC), op="matmul", m=4096, n=4096, k=4096, dtype="fp32")
    assert cost == pytest.approx(2 * 4096**3 / 4.61e12 + 10e-6, rel=1e-4)


def test_small_work_stays_on_one_core():
    """A 16³ product on 1/64 of the cores takes less than starting the others."""
    assert seconds(with_parameters(op_overhead=1e-9), op="matmul", m=16, n=16, k=16, dtype="fp32") < 5e-6


def test_each_call_costs_its_overhead():
    spec = {"op": "add", "numel": 1, "dtype": "fp32"}
    assert seconds(with_parameters(op_overhead=8e-6), **spec) - seconds(Cpu(EPYC), **spec) == pytest.approx(3e-6)


def test_in_a_model_python_surrounds_an_op_and_a_runtime_has_nodes_instead():
    spec = {"op": "add", "numel": 1, "dtype": "fp32"}
    device = with_parameters(op_overhead=1e-6, module_overhead=4e-6, runtime_overhead=2e-6)
    eager, planned = (seconds(device, launch, **spec) for launch in (Launch.EAGER, Launch.GRAPH))
    assert eager - planned == pytest.approx(1e-6 + 4e-6 - 2e-6)
    assert seconds(device.timed(Replay()), **spec) == pytest.approx(1e-6, rel=0.1), "a benchmark calls the framework"


def test_a_cold_call_costs_more():
    device = with_parameters(cold_start=1e-5)
    spec = {"op": "add", "numel": 16, "dtype": "fp32"}
    assert seconds(device.timed(None), **spec) - seconds(device.timed(Replay()), **spec) == pytest.approx(1e-5, rel=0.1)


def test_a_cpu_held_to_one_core_takes_one_cores_share():
    device = with_parameters(op_overhead=1e-9)
    took = seconds(device.on_one_core().timed(Replay()), **{**MATMUL, "m": 2048, "n": 2048, "k": 2048})
    assert took == pytest.approx(64 * 2 * 2048**3 / 4.61e12, rel=0.01)


def test_one_core_draws_what_it_has_in_flight():
    """One row is one core's: 1 KiB per 134 ns."""
    device = with_parameters(max_bytes_in_flight_per_unit=1024)
    took = seconds(device, op="softmax", rows=1, cols=10**6, dtype="fp32")
    assert took == pytest.approx(8e6 / (1024 / 134e-9), rel=0.01)


@pytest.mark.parametrize(("numel", "level"), [(10**4, "l1"), (10**6, "l2"), (10**7, "l3"), (10**9, "ddr")])
def test_warm_operands_come_from_the_nearest_memory_that_holds_them(numel, level):
    """12 B an element against half of 2, 32 and 256 MiB; what lies behind moves nothing."""
    device = Cpu(EPYC).timed(Replay())
    traffic = device.estimate(spec_kernel({"op": "add", "numel": numel, "dtype": "fp32"}, device)).traffic
    assert [memory for memory, nbytes in traffic.items() if nbytes][-1] == level or traffic[level] == 12 * numel
    assert traffic[level] == 12 * numel
    assert level == "ddr" or traffic["ddr"] == 0.0


def test_copies_of_the_weights_that_take_turns_are_not_found_in_the_caches():
    spec = {"op": "matmul", "m": 1, "n": 4096, "k": 4096, "batch": 1, "dtype": "fp32"}
    alone, turns = (seconds(Cpu(EPYC).timed(Replay(copies)), **spec) for copies in (1, 16))
    assert turns > 3 * alone


def test_activations_stay_in_the_caches_between_kernels_and_weights_do_not():
    kernel = spec_kernel({"op": "add", "numel": 10**6, "dtype": "fp32"}, Cpu(EPYC))
    made = replace(kernel, flows=tuple(replace(flow, role=Role.ACTIVATION) for flow in kernel.flows))
    device = Cpu(EPYC)
    assert device.estimate(made).traffic["ddr"] == 0.0
    assert device.estimate(kernel).traffic["ddr"] == 12e6
    assert device.estimate(made).seconds < device.estimate(kernel).seconds


def test_lanes_that_stay_empty_cost_time():
    """n = 12 fills one and a half vectors of 8: the time of two."""
    device = with_parameters(op_overhead=1e-9)
    wide, odd = (device.estimate(spec_kernel({**MATMUL, "m": 1, "n": n}, device)).busy["matmul"] for n in (16, 12))
    assert odd == pytest.approx(wide)


def test_large_new_results_are_paged_in_by_an_eager_framework():
    """40 MB in 4 KiB pages of 1 us; 30 MB stay with the allocator."""
    device = with_parameters(page_time=1e-6)
    plain = Cpu(EPYC)
    for numel, pages in ((10**7, 4e7 / 4096), (7 * 10**6, 0)):
        spec = {"op": "add", "numel": numel, "dtype": "fp32"}
        for launch, share in ((Launch.EAGER, 1), (Launch.GRAPH, 0)):
            more = seconds(device, launch, **spec) - seconds(plain, launch, **spec)
            assert more == pytest.approx(share * pages * 1e-6, abs=1e-8)


def test_a_runtime_has_packed_the_weights():
    device = typical()
    spec = {"op": "matmul", "m": 16, "n": 4096, "k": 4096, "batch": 1, "dtype": "fp32"}
    assert seconds(device, Launch.GRAPH, **spec) < 0.7 * seconds(device, Launch.EAGER, **spec)


def test_emulated_formats_are_slow_and_grouped_heads_are_copied():
    device = typical()
    product = {**MATMUL, "m": 2048, "n": 2048, "k": 2048}
    assert seconds(device, **{**product, "dtype": "bf16"}) > 5 * seconds(device, **product)
    heads = {"batch": 4, "heads": 32, "head_dim": 64, "kv_len": 1024, "q_len": 32, "causal": False, "dtype": "fp32"}
    grouped, full = (
        seconds(device, Launch.EAGER, op="attention_prefill", kv_heads=kv_heads, **heads) for kv_heads in (8, 32)
    )
    assert grouped > full


@pytest.mark.parametrize("state", [None, Replay()])
def test_a_stronger_machine_is_never_slower(state):
    better = [
        typical(**{"memories.ddr.bandwidth": "400 GB/s"}),
        typical(**{"memories.l3.bandwidth": "9 TB/s"}),
        typical(
            **{"compute.matmul.fp32": "9 TFLOP/s", "compute.vector.fp32": "9 TFLOP/s", "compute.special": "1 TOP/s"}
        ),
        typical(**{"memories.ddr.latency": "60 ns"}),
    ]
    for spec in sample_specs(EPYC):
        base = typical().timed(state) if state else typical()
        kernel = spec_kernel(spec, base)
        for device in better:
            other = device.timed(state) if state else device
            assert other.estimate(kernel).seconds <= base.estimate(kernel).seconds * (1 + 1e-9), spec


def test_more_cores_at_the_same_rate_each_are_never_slower():
    twice = typical(
        **{
            "compute.units": 128,
            **{
                f"compute.{unit}.{fmt}": f"{2 * rate} FLOP/s"
                for unit, rates in RATES.items()
                for fmt, rate in rates.items()
            },
            "compute.special": f"{2 * EPYC.special} OP/s",
            **{f"memories.{m.name}.bandwidth": f"{2 * m.bandwidth} B/s" for m in EPYC.memories if m.kind == "cache"},
        }
    )
    for spec in sample_specs(EPYC):
        kernel = spec_kernel(spec, twice)
        assert twice.estimate(kernel).seconds <= typical().estimate(kernel).seconds * (1 + 1e-9), spec


RATES = {"matmul": EPYC.matmul, "vector": EPYC.vector}


def test_typical_constants_keep_the_device_sound():
    parameters = {name: Figure(value, "", "assumed", "test") for name, value in TYPICAL.items()}
    card = replace(EPYC, parameters={**EPYC.parameters, **parameters})
    assert check_device(Cpu(card)) == []
    for spec in sample_specs(card):
        kernel = spec_kernel(spec, Cpu(card))
        assert Cpu(card).estimate(kernel).seconds >= roofline_seconds(card, kernel)[0]


def test_many_kernels_cost_what_each_costs_alone():
    device = typical()
    kernels = [spec_kernel(spec, device) for spec in sample_specs(EPYC)]
    assert estimate_all(device, kernels) == [device.estimate(kernel) for kernel in kernels]
    assert device.seconds(device.batches(kernels)) == pytest.approx([device.estimate(k).seconds for k in kernels])
    assert np.all(device.joules(device.batches(kernels)) > 0)


def test_constants_are_found_again():
    """Times made with known constants lead back to them from typical ones."""
    device = Cpu(EPYC, State.REPLAY, Replay())
    assert isinstance(device, Calibratable)
    kernels = [spec_kernel(spec, device) for spec in sample_specs(EPYC)]
    true = {**TYPICAL, "op_overhead": 4e-6, "narrow_share": 0.3, "scalar_time": 5e-9}
    batch = device.batches(kernels)
    sample = Sample(device, batch, device.with_constants(true).seconds(batch))
    found = fit([sample], ["op_overhead", "narrow_share", "scalar_time"], TYPICAL)
    for name in found:
        assert found[name].value == pytest.approx(true[name], rel=0.15)


def test_every_constant_has_a_neutral_and_a_typical_value_within_its_bounds():
    assert len(CONSTANTS) <= 20
    assert set(TYPICAL) == set(CONSTANTS)
    for name, constant in CONSTANTS.items():
        assert constant.low <= TYPICAL[name] <= constant.high
        assert constant.neutral <= constant.high


def test_a_card_without_its_parameters_is_refused():
    with pytest.raises(CardError, match=r"lacks parameters.simd_width\n.*lacks parameters.thread_start"):
        Cpu(replace(EPYC, parameters={}))
