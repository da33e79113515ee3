"""Convolutions of the GPU family: which way each takes, its sizes by hand, and the laws of their times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.gpu import Gpu, conv
from hwsim.devices.gpu.timing import Load
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Kernel, Launch
from hwsim.testing import roofline_seconds

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)


def convolution(launch: Launch = Launch.GRAPH, **changes: object) -> Kernel:
    sizes = {"n": 8, "c": 64, "h": 56, "w": 56, "o": 128, "k": 3, "stride": 1, "padding": 1, "groups": 1}
    return spec_kernel({"op": "conv2d", **sizes, "dtype": "bf16", "layout": "nhwc", **changes}, H200, launch)


def test_channels_last_gathers_runs_of_channels_tap_by_tap():
    x = conv.shape(convolution())
    assert x.way == conv.GATHERED
    assert (x.m, x.n, x.taps, x.channels, x.copies) == (8 * 56 * 56, 128, 9, 64, 0)


def test_channels_first_of_16_bit_are_copied_there_and_back():
    x = conv.shape(convolution(layout="nchw"))
    kernel = convolution(layout="nchw")
    assert (x.copies, x.copied) == (3, kernel.nbytes)
    assert conv.shape(convolution(layout="nchw", dtype="fp32")).copies == 0


def test_one_tap_without_stride_is_a_product_in_either_layout():
    for layout in ("nhwc", "nchw"):
        assert conv.shape(convolution(k=1, padding=0, layout=layout)).way == conv.PRODUCT
    assert conv.shape(convolution(k=1, padding=0, stride=2)).way == conv.GATHERED


def test_few_channels_last_are_padded_but_where_there_are_kernels_for_them():
    assert conv.shape(convolution(c=4)).copies == conv.PADDING_LAUNCHES
    assert conv.shape(convolution(c=4, dtype="fp16")).copies == conv.shape(convolution(c=8)).copies == 0
    odd = conv.shape(convolution(c=3))
    assert (odd.copies, odd.single, odd.lanes) == (0, True, conv.LANE_INDEXING["nhwc"])


def test_tiles_of_warpgroups_are_for_chips_that_have_them_and_few_taps():
    shapes = [conv.shape(convolution(c=256, o=256, k=k, padding=k // 2)) for k in (3, 7)]
    kernels = [convolution(c=256, o=256, k=k, padding=k // 2) for k in (3, 7)]
    ampere = Gpu(load_device("nvidia-a100-80gb", calibration=None).card)
    walks = [conv.walked(row(x), loads(H200, kernel), H200.chip) for x, kernel in zip(shapes, kernels, strict=True)]
    flops = [x.m * x.n * x.taps * x.channels * 2 for x in shapes]
    rates = [work / float(walk.products[0]) for work, walk in zip(flops, walks, strict=True)]
    assert rates[1] == pytest.approx(conv.WARP_SHARE * rates[0], rel=0.02)
    alone = conv.walked(row(shapes[0]), loads(ampere, kernels[0]), ampere.chip)
    assert alone.scheduled[0] == 0 and walks[0].scheduled[0] == 1  # many tiles, taken as units become free


def test_what_is_not_there_of_a_tile_is_not_loaded():
    for filters in (8, 64):
        kernel = convolution(o=filters)
        walk = conv.walked(row(conv.shape(kernel)), loads(H200, kernel), H200.chip)
        positions, k = 8 * 56 * 56, 9 * 64
        few = {k * 2 * (positions + filters * np.ceil(positions / rows)) for rows in (64, 128, 256)}
        assert float(walk.loaded[0]) in few


def test_products_of_16_bits_on_lanes_cost_their_instructions():
    kernel = convolution(c=3, o=32, layout="nchw")
    x, load = row(conv.shape(kernel)), loads(H200, kernel)
    issued = float(np.asarray(conv.gathered(x, load, H200.chip).issued)[0])
    assert issued >= kernel.work.matmul_flops / 2 / conv.LANE_INDEXING["nchw"]
    units = convolution(c=64, o=32)
    assert float(np.asarray(conv.gathered(row(conv.shape(units)), loads(H200, units), H200.chip).issued)[0]) == 0.0


def row(x: conv.Convolution) -> conv.Convolution:
    return conv.Convolution(*(np.array([float(value)]) for value in x))


def loads(device: Gpu, kernel: Kernel) -> Load:
    return device.batches([kernel]).columns.load(device.chip, None, False, 0.0)


def test_depthwise_goes_output_by_output():
    x = conv.shape(convolution(groups=64, o=64, layout="nchw"))
    assert (x.way, x.outputs, x.threads) == (conv.DIRECT, 8 * 64 * 56 * 56, 1024)
    assert x.instructions == pytest.approx(165 + 9 * 14.5)
    half = conv.shape(convolution(groups=64, o=64, layout="nchw", dtype="fp16"))
    assert half.instructions < x.instructions  # cuDNN's kernel, from 32 channels of fp16


def test_gradients_are_products_of_the_same_work():
    for direction in ("forward", "grad_input", "grad_weight"):
        kernel = convolution()
        attrs = {**kernel.attrs, "direction": direction}
        groups, m, n, taps, channels = conv.product_of(Kernel("c", kernel.kind, attrs, kernel.work, kernel.flows))
        assert 2 * groups * m * n * taps * channels == kernel.work.matmul_flops


SIZES = st.fixed_dictionaries({
    "n": st.integers(1, 16), "c": st.sampled_from([16, 48, 64, 256]), "o": st.sampled_from([16, 32, 96, 256]),
    "h": st.integers(7, 64), "w": st.integers(7, 64), "k": st.sampled_from([1, 3, 5, 7]), "padding": st.just(2),
    "dtype": st.sampled_from(["bf16", "fp16", "fp32"]), "layout": st.sampled_from(["nhwc", "nchw"]),
})  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(sizes=SIZES, state=st.sampled_from([None, Replay()]))
def test_larger_batches_take_no_less_time_and_none_beats_the_roofline(sizes, state):
    device = timed(H200, state)
    kernel = convolution(**sizes)
    cost = device.estimate(kernel)
    assert device.estimate(convolution(**{**sizes, "n": 2 * sizes["n"]})).seconds >= 0.99 * cost.seconds
    if state is None:
        assert cost.seconds >= roofline_seconds(H200.card, kernel)[0]
    assert all(busy <= 1.0001 * cost.seconds for busy in cost.busy.values())


def test_many_kernels_at_once_cost_what_they_cost_one_by_one():
    kernels = [convolution(groups=64, o=64), convolution(k=1, padding=0), convolution(layout="nchw"), convolution(c=3)]
    together = H200.estimate_all(kernels)
    alone = [H200.estimate(kernel) for kernel in kernels]
    np.testing.assert_allclose([cost.seconds for cost in together], [cost.seconds for cost in alone])
    np.testing.assert_allclose([cost.joules for cost in together], [cost.joules for cost in alone])


STRIDED = st.fixed_dictionaries({
    "n": st.integers(1, 64), "c": st.sampled_from([3, 16, 64, 264, 768]), "o": st.sampled_from([8, 32, 256]),
    "h": st.integers(8, 224), "w": st.integers(8, 224), "k": st.sampled_from([1, 2, 3, 7]),
    "padding": st.integers(0, 1), "stride": st.integers(2, 5), "dtype": st.sampled_from(["bf16", "fp16", "fp32"]),
    "layout": st.sampled_from(["nhwc", "nchw"]), "groups": st.just(1),
})  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(sizes=STRIDED, depthwise=st.booleans())
def test_strides_leave_no_way_around_the_roofline(sizes, depthwise):
    if depthwise:
        sizes = {**sizes, "groups": sizes["c"], "o": sizes["c"]}
    kernel = convolution(**sizes)
    for device in (H200, timed(H200, None)):
        assert device.estimate(kernel).seconds >= roofline_seconds(H200.card, kernel)[0]


def test_few_channels_first_stay_where_they_are():
    small = {"c": 3, "o": 32, "h": 24, "w": 24, "layout": "nchw"}
    x = conv.shape(convolution(**small))
    assert (x.copies, x.single, x.lanes) == (0.0, True, conv.LANE_INDEXING["nchw"])
    assert conv.shape(convolution(**small | {"k": 5, "padding": 2})).copies == 3.0
    assert conv.shape(convolution(**small | {"k": 5, "padding": 0})).copies == 0.0
    assert conv.shape(convolution(**small | {"h": 512, "w": 512, "o": 512})).copies == 3.0
    assert conv.shape(convolution(**small | {"h": 512, "w": 512, "o": 512, "padding": 0})).copies == 0.0


def test_depthwise_with_channels_last_has_kernels_for_batches():
    sizes = {"groups": 64, "o": 64}
    batch, single = (conv.shape(convolution(**sizes, n=n)) for n in (8, 4))
    assert batch.instructions == pytest.approx(37 + 9 * 3.3)
    assert single.instructions == pytest.approx(1 + 9 * 7.2)
    assert conv.shape(convolution(**sizes, stride=2)).instructions > batch.instructions
    assert conv.shape(convolution(**sizes, padding=0)).instructions == batch.instructions  # smaller, but no stride
