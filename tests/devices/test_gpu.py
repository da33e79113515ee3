"""The GPU family: hand-checkable latencies and bounds, and properties over all GPU cards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device
from hwsim.devices.gpu import RUNS, Gpu, State
from hwsim.errors import CardError
from hwsim.graph import Graph, Kind, Op, Tensor
from hwsim.kernel_spec import spec_kernel
from hwsim.kernels.families import Family
from hwsim.mapper import Kernel, Launch, Placement
from hwsim.testing import roofline_seconds
from hwsim.work import work_of

NAMES = ("nvidia-h200", "nvidia-h100-sxm", "nvidia-a100-80gb", "nvidia-a6000", "nvidia-rtx-4090")
GPUS = {name: load_device(name) for name in NAMES}
H200 = Gpu(load_device("nvidia-h200", calibration=None).card)
HBM, L2 = 4.8e12, 9.7e12
DTYPES = st.sampled_from(["bf16", "fp16", "fp32", "int8"])
SIZES = st.integers(1, 5000)


def seconds(device: Gpu, launch: Launch = Launch.GRAPH, **spec: object) -> float:
    return device.estimate(spec_kernel(spec, device, launch)).seconds


@st.composite
def specs(draw: st.DrawFn) -> dict[str, object]:
    dtype = draw(DTYPES)
    op = draw(st.sampled_from(["matmul", "gelu", "softmax", "attention_prefill", "embedding"]))
    if op == "matmul":
        return {"op": op, "m": draw(SIZES), "n": draw(SIZES), "k": draw(SIZES), "batch": draw(st.integers(1, 9)),
                "dtype": dtype}  # fmt: skip
    if op == "gelu":
        return {"op": op, "numel": draw(SIZES) * draw(SIZES), "dtype": dtype}
    if op == "softmax":
        return {"op": op, "rows": draw(SIZES), "cols": draw(SIZES), "dtype": dtype}
    if op == "embedding":
        return {"op": op, "vocab": 32000, "dim": draw(SIZES), "tokens": draw(SIZES), "dtype": dtype}
    kv_heads = draw(st.integers(1, 4))
    return {"op": op, "batch": draw(st.integers(1, 4)), "heads": kv_heads * draw(st.integers(1, 4)),
            "kv_heads": kv_heads, "head_dim": draw(st.sampled_from([64, 80, 128])), "q_len": draw(SIZES),
            "kv_len": draw(SIZES), "causal": draw(st.booleans()), "dtype": dtype}  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(spec=specs(), name=st.sampled_from(NAMES))
def test_no_kernel_beats_the_roofline_of_its_card(spec, name):
    device = GPUS[name]
    kernel = spec_kernel(spec, device)
    cost = device.estimate(kernel)
    assert cost.seconds >= roofline_seconds(device.card, kernel)[0]
    main = device.card.main.name
    assert cost.traffic[main] >= sum(flow.nbytes for flow in kernel.flows) * (1 - 1e-12)
    assert cost.joules > 0


@settings(max_examples=80, deadline=None)
@given(m=SIZES, n=SIZES, k=SIZES, grown=st.sampled_from(["m", "n", "k"]))
def test_twice_the_matmul_takes_no_less_time(m, n, k, grown):
    """Within 1 %: where a single tile waits for memory, a second one also brings more bytes in flight."""
    spec = {"op": "matmul", "m": 16 * m, "n": 16 * n, "k": 16 * k, "dtype": "bf16"}
    assert seconds(H200, **{**spec, grown: 2 * spec[grown]}) >= seconds(H200, **spec) * 0.99


@given(first=specs(), second=specs(), times=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_energy_and_bytes_add_up_over_kernels(first, second, times):
    one, other = (H200.estimate(spec_kernel(spec, H200)) for spec in (first, second))
    total = times * one + other
    assert total.joules == pytest.approx(times * one.joules + other.joules)
    assert total.traffic["hbm"] == pytest.approx(times * one.traffic["hbm"] + other.traffic["hbm"])


def test_a_tiny_kernel_takes_little_more_than_its_launch():
    """1.3 us in a graph; 2.5 us where a single launch is timed."""
    tiny = {"op": "add", "numel": 1, "dtype": "bf16"}
    assert 1.3e-6 < seconds(H200, **tiny) < 1.3e-6 + 2e-6
    assert 2.5e-6 < seconds(H200.timed(None), Launch.EAGER, **tiny) < 2.5e-6 + 2e-6


def test_only_eager_launches_take_time_of_the_host():
    spec = {"op": "add", "numel": 1, "dtype": "bf16"}
    assert H200.host_seconds(spec_kernel(spec, H200)) == 0
    assert H200.host_seconds(spec_kernel(spec, H200, Launch.EAGER)) == 6e-6


def test_a_long_stream_takes_its_bytes_over_the_bandwidth():
    """3 x 4 B x 1e9 over 4.8 TB/s is 2.5 ms, against which launch, latency and issue are little."""
    assert 12e9 / HBM < seconds(H200, op="add", numel=10**9, dtype="fp32") < 1.05 * 12e9 / HBM


def test_warm_operands_come_from_the_cache():
    """12 MB fit in 60 MiB: no byte of HBM, and faster than its bandwidth."""
    spec = {"op": "add", "numel": 10**6, "dtype": "fp32"}
    warm = H200.timed(Replay())
    cost = warm.estimate(spec_kernel(spec, warm))
    assert cost.traffic["hbm"] == 0
    assert cost.seconds < seconds(H200, **spec)


def test_copies_of_weights_that_take_turns_come_from_main_memory():
    """64 MB of weights fit six times in no cache, 1 MB does."""
    for width, missed in ((4096, 2 * 4096**2), (512, 0)):
        kernel = spec_kernel({"op": "matmul", "m": 16, "n": width, "k": width, "dtype": "bf16"}, H200)
        assert H200.timed(Replay(copies=6)).estimate(kernel).traffic["hbm"] >= missed
        assert (H200.timed(Replay(copies=6)).estimate(kernel).traffic["hbm"] > 0) is (missed > 0)


def test_beyond_the_cache_warm_is_no_better_than_cold_by_its_bytes():
    cost = H200.timed(Replay()).estimate(spec_kernel({"op": "add", "numel": 10**8, "dtype": "fp32"}, H200))
    assert cost.traffic["hbm"] == 12e8


def test_causal_attention_takes_about_half_and_a_window_less():
    spec = {"op": "attention_prefill", "batch": 8, "heads": 32, "kv_heads": 8, "head_dim": 128}
    spec |= {"q_len": 8192, "kv_len": 8192, "dtype": "bf16"}
    full, half = (spec_kernel({**spec, "causal": causal}, H200) for causal in (False, True))
    windowed = replace(half, attrs={**half.attrs, "window": 1024})
    times = [H200.estimate(kernel).seconds for kernel in (full, half, windowed)]
    assert times[1] / times[0] == pytest.approx(0.5, abs=0.03)
    assert times[2] < 0.35 * times[1]


def test_a_long_cache_of_one_sequence_occupies_many_units():
    """One pair of heads is cut into parts along the keys: far above the bandwidth that one unit draws."""
    spec = {"op": "attention_decode", "batch": 1, "heads": 8, "kv_heads": 1, "head_dim": 128, "dtype": "bf16"}
    nbytes = 2 * 2**20 * 128 * 2
    assert nbytes / HBM < seconds(H200, **spec, kv_len=2**20) < 3 * nbytes / HBM


def test_rows_that_do_not_start_at_whole_loads_take_longer():
    spec = {"op": "matmul", "m": 2048, "k": 512, "dtype": "bf16"}
    assert seconds(H200, **spec, n=2047) > 1.5 * seconds(H200, **spec, n=2048)


def test_short_runs_of_a_gather_touch_whole_grains():
    """8 B of a row cost the 64 B that HBM delivers."""
    kernel = spec_kernel({"op": "gather_rows", "rows": 1000, "row_bytes": 8, "table_bytes": 10**9}, H200)
    assert H200.estimate(kernel).traffic["hbm"] == 1000 * (64 + 8 + 8)


def test_few_rows_leave_units_idle():
    """The same bytes in 8 rows or in 8192: one unit a row."""
    wide, tall = ({"op": "softmax", "rows": rows, "cols": 2**23 // rows, "dtype": "fp32"} for rows in (8, 8192))
    assert seconds(H200, **wide) > 3 * seconds(H200, **tall)


HUNGRY = {"op": "matmul", "m": 8192, "n": 8192, "k": 8192, "dtype": "bf16"}
THIRSTY = H200.with_constants({"matmul_energy": 4.0})
FREE = H200.with_constants(dict.fromkeys(("matmul_energy", "cache_energy", "main_energy"), 0.0))


def test_a_long_run_slows_down_to_the_power_limit():
    cost = THIRSTY.estimate(spec_kernel(HUNGRY, H200))
    assert cost.bound == "power"
    assert cost.joules / cost.seconds == pytest.approx(700 - H200.card.static_power, rel=1e-3)
    assert seconds(FREE, **HUNGRY) < cost.seconds


def test_a_benchmark_slows_down_as_far_as_its_power_settles():
    """Seven launches of 1 ms pass the 5 ms after which power is limited, seven of 0.1 ms do not."""
    for size, limited in ((8192, True), (3072, False)):
        sizes = {**HUNGRY, "m": size, "n": size, "k": size}
        free, once = (seconds(device.timed(None), **sizes) for device in (FREE, THIRSTY))
        assert (once > 1.01 * free) == limited


def test_a_benchmark_is_as_long_as_measurements_are_at_least():
    fields = Family.__dataclass_fields__
    assert (RUNS[State.SINGLE], RUNS[State.REPLAY]) == (fields["repeats"].default, fields["per_graph"].default)


def test_what_hungry_kernels_draw_others_save():
    """Together with a long copy the product is slowed down less than alone, and never below its time at full clock."""
    product = spec_kernel(HUNGRY, H200)
    copy = spec_kernel({"op": "copy_d2d", "bytes": 10**9}, H200)
    alone = THIRSTY.estimate(product).seconds
    (mixed, _) = THIRSTY.estimate_run((product, copy), (1.0, 4.0))
    (lone,) = THIRSTY.estimate_run((product,), (7.0,))
    assert lone.seconds == pytest.approx(alone, rel=1e-4)
    assert seconds(FREE, **HUNGRY) <= mixed.seconds * 1.01 < alone


@pytest.mark.parametrize(("megabytes", "passed"), [(2, 1.0), (200, 0.0)])
def test_kernels_of_a_run_pass_small_activations_through_the_cache(megabytes, passed):
    """x and y of a sum are activations; what is large against 60 MiB goes through main memory."""
    shape = (megabytes, 10**6 // 4)
    tensors = {name: Tensor(name, shape, "fp32") for name in ("x", "y")}
    op = Op(Kind.ELEMENTWISE, ("x",), ("y",), {"function": "neg", "numel": shape[0] * shape[1]}, "neg")
    work = work_of(op, Graph("neg", tensors, (op,)))
    kernel = Kernel("neg", op.kind, op.attrs, work, Placement("hbm").flows(work))
    (cost,) = H200.estimate_run((kernel,), (1.0,))
    alone = H200.estimate(kernel)
    assert alone.traffic["hbm"] == 2 * megabytes * 1e6
    assert cost.traffic["hbm"] == pytest.approx((1 - passed) * alone.traffic["hbm"])
    assert cost.seconds <= alone.seconds


def test_all_that_a_card_lacks_is_named_at_once():
    card = H200.card
    kept = {name: figure for name, figure in card.parameters.items() if name not in ("tile_m", "launch_latency")}
    with pytest.raises(CardError) as error:
        Gpu(replace(card, parameters=kept))
    assert [str(problem) for problem in error.value.problems] == [
        "card 'nvidia-h200' of family 'gpu' lacks parameters.launch_latency",
        "card 'nvidia-h200' of family 'gpu' lacks parameters.tile_m",
    ]


def test_the_gradient_of_a_depthwise_weight_costs_about_its_forward():
    """Each group meets its own channel only, whatever the FLOP counter says."""
    sizes = {"batch": 8, "in_channels": 512, "out_channels": 512, "groups": 512, "in_size": (56, 56), "kernel": (3, 3)}
    attrs = {**sizes, "out_size": (56, 56), "transposed": False}
    shapes = {"x": (8, 512, 56, 56), "w": (512, 1, 3, 3), "y": (8, 512, 56, 56)}
    tensors = {name: Tensor(name, shape, "bf16") for name, shape in shapes.items()}
    took = []
    for direction, inputs, output in (("forward", ("x", "w"), "y"), ("grad_weight", ("y", "x"), "w")):
        op = Op(Kind.CONV, inputs, (output,), {**attrs, "direction": direction}, "conv")
        work = work_of(op, Graph("conv", tensors, (op,)))
        kernel = Kernel("conv", op.kind, op.attrs, work, Placement("hbm").flows(work))
        took.append(H200.estimate(kernel).seconds)
    assert took[1] < 10 * took[0]


def test_short_runs_cost_no_more_than_a_grain():
    """Picking single bf16 values is not slower than picking as many runs of 32 bytes."""
    run = {"op": "gather_rows", "rows": 200_000, "table_bytes": 1 << 30}
    assert seconds(H200, **run, row_bytes=2) <= seconds(H200, **run, row_bytes=32) * 1.01
