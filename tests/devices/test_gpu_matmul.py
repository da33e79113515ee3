"""Matrix products of the GPU family: which main loop they get, their times by hand, and the laws of their times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.gpu import Gpu, matmul
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Kernel, Launch
from hwsim.measurements import read_measurements
from hwsim.testing import roofline_seconds

H200, A100 = (Gpu(load_device(name, calibration=None).card) for name in ("nvidia-h200", "nvidia-a100-80gb"))
SINGLE = timed(H200, None)
# Nothing but arithmetic and traffic: no latency, no sharing between the two, no power.
BARE = H200.with_constants(
    dict.fromkeys(("graph_launch_latency", "tile_latency", "slice_latency", "matmul_overlap", "cache_energy"), 0.0)
    | {"store_share": 1e9, "cache_share": 1e9}
)
START = matmul.START_ANSWERS * (348e-9 - 142e-9)  # operands come from main memory, not from the cache


def product(device: Gpu = H200, launch: Launch = Launch.GRAPH, **sizes: object) -> Kernel:
    return spec_kernel({"op": "matmul", "dtype": "bf16", **sizes}, device, launch)


def seconds(device: Gpu = H200, **sizes: object) -> float:
    return device.estimate(product(device, **sizes)).seconds


def way(device: Gpu, **sizes: object) -> int:
    batches = device.batches([product(device, **sizes)])
    load = batches.columns.load(device.chip, None)
    return int(matmul.ways(batches.parts[0].shape, load, device.chip)[0])


def test_alignment_is_that_of_the_worst_row():
    assert matmul.shape(product(m=8, n=64, k=64)).aligned == 16
    assert matmul.shape(product(m=8, n=64, k=66)).aligned == 4  # 132 bytes
    assert matmul.shape(product(m=8, n=65, k=64)).aligned == 2  # rows of the result of 130 bytes
    assert matmul.shape(product(m=8, n=68, k=64, dtype="fp8")).aligned == 8  # results in bf16: 136 bytes


def test_warpgroups_take_aligned_floats_where_a_card_has_them():
    assert way(H200, m=64, n=64, k=64) == matmul.GROUP
    assert way(H200, m=64, n=64, k=66) == matmul.NARROW
    assert way(H200, m=64, n=64, k=65) == matmul.ROUGH
    assert way(H200, m=64, n=64, k=64, dtype="int8") == matmul.WARP
    assert way(H200, m=64, n=64, k=64, dtype="fp32") == matmul.LANES
    assert way(A100, m=64, n=64, k=64) == matmul.WARP


def test_each_expert_is_a_product_of_its_share_of_the_rows():
    kernel = product(m=64, n=256, k=128)
    experts = replace(kernel, attrs={**kernel.attrs, "experts": 8})
    x = matmul.shape(experts)
    assert (x.batch, x.m) == (8, 8)  # 64 rows find all eight


def test_large_products_take_their_flops_over_the_peak():
    m, n, k = 128 * 12, 256 * 11, 64 * 64  # 132 tiles of 128 x 256: one a unit
    assert seconds(BARE, m=m, n=n, k=k) == pytest.approx(START + 2 * m * n * k / 989.4e12, rel=1e-6)


def test_few_rows_take_their_weights_over_the_bandwidth():
    nbytes = 2 * (8 * 8192 + 8192 * 8192 + 8 * 8192)
    assert seconds(BARE, m=8, n=8192, k=8192) == pytest.approx(START + nbytes / 4.8e12, rel=1e-6)


def test_a_lone_tile_walks_k_step_by_step():
    longer, shorter = (seconds(m=8, n=8, k=k, batch=2) for k in (64 * 200, 64 * 100))  # batches are not split
    assert longer - shorter == pytest.approx(100 * matmul.STEP_CYCLES / 1.83e9, rel=0.01)


def test_long_sums_of_few_results_are_split_among_units():
    sizes = {"n": 128, "k": 16384}
    assert seconds(m=128, **sizes) < 0.5 * seconds(m=128, batch=2, **sizes)


def test_slices_must_be_worth_what_they_cost():
    def slow(k: int) -> float:
        return seconds(H200.with_constants({"slice_latency": 1e-5}), m=64, n=64, k=k)

    assert slow(1024) == pytest.approx(seconds(H200.with_constants({"slice_latency": 1.0}), m=64, n=64, k=1024))
    assert slow(65536) < seconds(H200.with_constants({"slice_latency": 1.0}), m=64, n=64, k=65536)


def test_tiles_of_warps_leave_units_idle_in_the_last_wave():
    tile, units = 128 * 256, 108
    whole = {"n": 256, "k": 4096}
    full, over = (seconds(A100, m=128 * count, **whole) for count in (units, units + 8))
    assert over > 1.15 * full
    assert full > 2 * tile * units * 4096 / 312e12


def test_odd_rows_are_loaded_element_by_element():
    even, odd = (seconds(m=4096, n=n, k=4096) for n in (4096, 4095))
    # a tile of 128 x 128 loads 256 elements for each k, one by one, then multiplies; 8 waves of 132 tiles
    loading, multiplying = 256 / matmul.NARROW_COPIES / 1.83e9, 2 * 128 * 128 / (0.5 * 989.4e12 / 132)
    assert odd == pytest.approx(8 * 4096 * (loading + multiplying), rel=0.1)
    assert odd > 3 * even


def test_few_rows_on_lanes_take_time_for_each_weight_and_less_for_each_row():
    """The weights are read once, whatever the rows: as many more of them take as much more time."""
    sizes = {"k": 4096, "dtype": "fp32"}
    once, twice, thrice = (seconds(m=4, n=132 * 80 * times, **sizes) for times in (1, 2, 3))
    assert thrice - twice == pytest.approx(twice - once, rel=0.15)
    by_rows = [seconds(m=m, n=132 * 80, **sizes) for m in range(2, 17)]
    assert by_rows == sorted(by_rows)
    assert by_rows[-1] < 4 * by_rows[0]
    assert by_rows[0] > 4 * 132 * 80 * 4096 / 4.8e12


@pytest.mark.parametrize("name", ["nvidia-h200", "nvidia-h200-second", "nvidia-h100-sxm", "nvidia-h100-sxm-second"])
def test_few_rows_on_lanes_take_what_was_measured(name):
    """Single products in fp32 of 2 to 16 rows; the ten or so of each machine, two of which no fit used."""
    bench = timed(load_device(name.removesuffix("-second")), Replay())
    rows = [row for row in read_measurements(name).rows if row.op == "matmul" and row.spec["dtype"] == "fp32"]
    few = [row for row in rows if 2 <= row.spec["m"] <= 16 and row.spec["n"] >= 64 and row.seconds_warm]
    off = [np.log(bench.estimate(spec_kernel(row.spec, bench)).seconds / row.seconds_warm) for row in few]
    assert len(off) >= 3
    assert np.exp(np.median(np.abs(off))) < 1.3
    assert np.exp(np.max(np.abs(off))) < 2.0


def test_batches_of_few_odd_rows_in_bf16_run_a_tile_that_is_mostly_empty():
    sizes = {"batch": 64, "n": 4096, "k": 4095}
    few, more = (seconds(m=m, **sizes) for m in (3, 24))
    assert few == pytest.approx(more, rel=0.05)
    assert few > 3 * seconds(m=3, dtype="fp16", **sizes)


def test_weights_that_one_unit_reads_fill_the_cache():
    capacity = H200.chip.cache.capacity
    warm = timed(H200.with_constants({"keep": 0.3}), Replay())

    def read_again(m: int, n: int) -> float:
        kernel = product(warm, m=m, n=n, k=4096)
        return warm.estimate(kernel).traffic["hbm"] / kernel.nbytes

    assert read_again(8, int(0.7 * capacity / 8192)) == 0.0
    assert read_again(8, int(0.9 * capacity / 8192)) == pytest.approx(1.0, abs=0.01)
    assert (
        0.1 < read_again(512, int(0.6 * capacity / 8192)) < 1.0
    )  # several units read each weight, two copies are held


def test_lines_that_a_flush_left_dirty_delay_a_single_launch():
    cold = SINGLE.estimate(product(SINGLE, Launch.EAGER, m=1, n=16384, k=4096)).seconds
    run = seconds(m=1, n=16384, k=4096) - H200.chip["graph_launch_latency"] + SINGLE.chip["single_latency"]
    assert cold - run == pytest.approx(H200.chip.evicted(np.array(1e9)) / 4.8e12, rel=0.01)


SIZES = st.fixed_dictionaries({
    "m": st.integers(1, 5000), "n": st.integers(1, 5000), "k": st.integers(1, 5000),
    "batch": st.sampled_from([1, 1, 2, 40]), "dtype": st.sampled_from(["bf16", "fp32", "fp8", "int8"]),
})  # fmt: skip
DEVICES = st.sampled_from([H200, A100])
STATES = st.sampled_from([None, Replay()])


def supported(device: Gpu, dtype: object) -> bool:
    return not (device is A100 and dtype == "fp8")


def kernels_alike(less: dict[str, object], more: dict[str, object], kernel: Kernel, grown: Kernel) -> bool:
    """Whether a library has the same kernels for both: twice an odd row is an even one, a single product is no batch,
    vectors and few odd rows have kernels of their own."""
    few, many = matmul.shape(kernel), matmul.shape(grown)
    rows = (less["m"], more["m"])
    fixed = less["dtype"] == "bf16" and few.aligned < 4 and min(rows) <= 24 < max(rows)
    vector = min(few.m, few.n) == 1 < min(many.m, many.n)
    alike = (few.aligned, few.stored) == (many.aligned, many.stored)
    return alike and (few.batch > 1) == (many.batch > 1) and not fixed and not vector


@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, device=DEVICES, state=STATES, grown=st.sampled_from(["m", "n", "k", "batch"]))
def test_twice_a_size_takes_no_less_time_and_none_beats_the_roofline(sizes, device, state, grown):
    assume(supported(device, sizes["dtype"]))
    bench = timed(device, state)
    kernel = product(bench, **sizes)
    cost = bench.estimate(kernel)
    twice = {**sizes, grown: 2 * sizes[grown]}
    if kernels_alike(sizes, twice, kernel, product(bench, **twice)):
        assert seconds(bench, **twice) >= 0.99 * cost.seconds
    if state is None:
        assert cost.seconds >= roofline_seconds(bench.card, kernel)[0]
    assert all(busy <= 1.0001 * cost.seconds for busy in cost.busy.values())


@settings(max_examples=60, deadline=None)
@given(sizes=SIZES, device=DEVICES)
@example(sizes={"m": 1, "n": 4096, "k": 4096, "batch": 1, "dtype": "bf16"}, device=H200)
def test_less_of_the_chip_is_never_faster(sizes, device):
    assume(supported(device, sizes["dtype"]))
    chip = device.chip
    batches = device.batches([product(device, **sizes)])
    (batch,) = batches.parts
    load = batches.columns.load(chip, None)
    whole = matmul.timing(batch.shape, load, chip).seconds[0]
    fewer = load._replace(matmul_rate=load.matmul_rate / 2, vector_rate=load.vector_rate / 2)
    cache = replace(chip.cache, bandwidth=chip.cache.bandwidth / 2)
    half = replace(chip, units=chip.units // 2, cache=cache)
    assert matmul.timing(batch.shape, fewer, half).seconds[0] >= 0.99 * whole
    slower = replace(chip, main=replace(chip.main, bandwidth=chip.main.bandwidth / 2))
    assert matmul.timing(batch.shape, load, slower).seconds[0] >= whole


def test_half_the_bandwidth_slows_only_what_waits_for_memory():
    chip = H200.chip
    slower = replace(chip, main=replace(chip.main, bandwidth=chip.main.bandwidth / 2))
    ratios = []
    for m in (1, 8192):
        batches = H200.batches([product(m=m, n=8192, k=8192)])
        (batch,) = batches.parts
        load = batches.columns.load(chip, None)
        full, half = (matmul.timing(batch.shape, load, each).seconds[0] for each in (chip, slower))
        ratios.append(half / full)
    assert ratios[0] > 1.85  # less the first answers
    assert ratios[1] < 1.1


def test_many_products_at_once_cost_what_they_cost_one_by_one():
    sizes = [
        (1, 4096, 4096, 1, "bf16"),
        (33, 1000, 77, 3, "fp16"),
        (512, 512, 512, 1, "fp32"),
        (4096, 64, 512, 1, "fp8"),
    ]
    kernels = [product(m=m, n=n, k=k, batch=batch, dtype=dtype) for m, n, k, batch, dtype in sizes]
    together = H200.estimate_all(kernels)
    alone = [H200.estimate(kernel) for kernel in kernels]
    np.testing.assert_allclose([cost.seconds for cost in together], [cost.seconds for cost in alone])
    np.testing.assert_allclose([cost.joules for cost in together], [cost.joules for cost in alone])
