"""Attention on the GPU family: tiles and blocks counted by hand, and the laws of their times."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.attention import needed_scores
from hwsim.devices.gpu import Gpu
from hwsim.devices.gpu.attention import shape
from hwsim.devices.gpu.attention_flash import joined, plan
from hwsim.devices.gpu.attention_tiles import Cut, join, tiled, walked
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Kernel
from hwsim.testing import roofline_seconds

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)
A100 = Gpu(load_device("nvidia-a100-80gb", calibration=None).card)
B200 = Gpu(load_device("nvidia-b200", calibration=None).card)


# FlashAttention-2 takes fewer keys of wide heads at a time, and does a block whole: few keys can take less time with
# wide heads, as an L40S takes 2 % less in the median and up to 12 % for 64 keys and less of 128 than of 64.
WIDER = 0.8


def cards(style):
    return [device.with_constants({"attention_style": style}) for device in (H200, A100, B200)]


DIMS = st.sampled_from([64, 80, 96, 128, 192, 256])
STYLES = st.sampled_from([0.001, 0.05, 1.0])
HEADS = st.sampled_from([(1, 1), (8, 8), (32, 8), (16, 2), (64, 1)])


def prefill(batch=1, heads=8, kv_heads=8, head_dim=128, q_len=128, kv_len=128, causal=False, dtype="bf16") -> Kernel:
    sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    lengths = {"q_len": q_len, "kv_len": kv_len, "causal": causal}
    return spec_kernel({"op": "attention_prefill", **sizes, **lengths, "dtype": dtype}, H200)


def decode(batch=1, heads=8, kv_heads=8, head_dim=128, kv_len=128, dtype="bf16") -> Kernel:
    sizes = {"batch": batch, "heads": heads, "kv_heads": kv_heads, "head_dim": head_dim}
    return spec_kernel({"op": "attention_decode", **sizes, "kv_len": kv_len, "dtype": dtype}, H200)


def full(value: float) -> np.ndarray:
    return np.array(float(value))


def test_a_causal_square_of_four_tiles_walks_one_to_four_blocks():
    x = shape(prefill(q_len=512, kv_len=512, causal=True))
    assert [float(size) for size in walked(x, full(128), full(128))] == [4, 1 + 2 + 3 + 4, 4]


def test_the_last_chunk_of_a_prompt_walks_what_came_before_as_well():
    # 256 queries after 1,024 cached keys: tiles end in blocks 9 and 10
    x = shape(prefill(q_len=256, kv_len=1280, causal=True))
    assert [float(size) for size in walked(x, full(128), full(128))] == [2, 9 + 10, 10]


def test_a_window_bounds_the_blocks_of_a_tile():
    # 128 keys back from any of 128 queries: two blocks; the first tile walks one
    x = shape(prefill(q_len=1024, kv_len=1024, causal=True))._replace(window=full(128))
    assert [float(size) for size in walked(x, full(128), full(128))] == [8, 1 + 7 * 2, 2]


@given(q_len=st.integers(1, 600), cached=st.integers(0, 600), window=st.sampled_from([0, 1, 100, 300]))
def test_blocks_cover_the_scores_that_are_needed(q_len, cached, window):
    x = shape(prefill(q_len=q_len, kv_len=q_len + cached, causal=True))._replace(window=full(window))
    tiles, blocks, longest = (float(size) for size in walked(x, full(128), full(128)))
    assert blocks * 128 * 128 >= needed_scores(q_len, q_len + cached, True, window)
    assert longest * tiles >= blocks >= tiles


def test_flash_attention_fills_a_tile_with_the_queries_of_a_group():
    # warpgroups: always; warps and tensor memory: single queries only
    one, many = shape(decode(heads=32, kv_heads=8)), shape(prefill(heads=32, kv_heads=8, q_len=512, causal=True))
    for device, rows, packed in ((H200, (64, 128), (4, 4)), (A100, (64, 64), (4, 1)), (B200, (8, 256), (4, 1))):
        cuts = [plan(x, device.chip).cut for x in (one, many)]
        assert [(float(cut.rows), float(cut.packed)) for cut in cuts] == list(zip(rows, packed, strict=True))


def test_blocks_of_threads_share_a_unit_where_shared_memory_allows():
    # 64 rows of 128 and 128 keys and values of 128, 2 B each: 80 KiB of 164 on an A100; 64 keys of 256: 96 KiB
    residents = [float(plan(shape(prefill(head_dim=dim, causal=True)), A100.chip).residents) for dim in (128, 256)]
    assert residents == [2, 1]
    assert float(plan(shape(prefill(head_dim=256)), H200.chip).residents) == 1


def test_with_a_paged_cache_flash_attention_2_splits_the_keys_of_groups_only():
    alone, group = shape(decode(kv_len=8192)), shape(decode(heads=16, kv_heads=2, kv_len=8192))
    assert [bool(plan(x, A100.chip).split) for x in (alone, group)] == [False, True]
    assert bool(plan(alone, A100.chip, served=False).split)
    served, torch = (timed(A100.with_constants({"attention_style": style}), None) for style in (1.0, 0.001))
    assert served.estimate(decode(kv_len=65536)).seconds > 5 * torch.estimate(decode(kv_len=65536)).seconds


@pytest.mark.parametrize(
    ("rows", "width", "padded"), [(128, 64, 128 / 80), (128, 32, 96 / 80), (256, 64, 2 * 128 / 80)]
)
def test_heads_and_queries_are_padded_to_whole_tiles(rows, width, padded):
    """128 queries and keys of one head of 80: a block of scores, 2 x 80 products each."""
    one = prefill(batch=1, heads=1, kv_heads=1, head_dim=80, q_len=128, kv_len=128, causal=False)
    batches = H200.batches([one])
    cut = Cut(full(rows), full(128), full(1), width)
    done = tiled(batches.parts[0].shape, batches.columns.load(H200.chip, None), cut, full(1))
    assert float(done.padding[0]) == pytest.approx(padded)
    assert float(done.issued) == 4 * rows * 128


def test_decoding_few_keys_works_on_tiles_of_64_queries():
    """One query of a group of 8 over 64 keys: an eighth of the rows is wanted."""
    one = decode(batch=16, heads=64, kv_heads=8, head_dim=128, kv_len=64)
    device = H200.with_constants({"attention_style": 0.001})
    times = device.times(device.batches([one]), limited=False)
    assert float(times.timing.padding[0]) == pytest.approx(8)


def test_one_part_of_the_keys_needs_no_joining():
    x = shape(decode())
    assert float(join(x, full(1), H200.chip)) == 0.0
    wait = 3 * (348e-9 + 142e-9) + 8 / 4 * 142e-9  # three answers of memory, and of the cache for each fourth part
    moved = 2 * 8 * 8 * 128 * 4  # fp32 outputs of 8 heads in 8 parts, written and read
    assert float(join(x, full(8), H200.chip)) == pytest.approx(wait + moved / 9.7e12)
    cycles = 2000 / H200.chip.clock + 8 / 4 * 142e-9
    assert float(joined(x, full(8), H200.chip, 4.0)) == pytest.approx(cycles + moved / 9.7e12)
    assert float(joined(x, full(1), H200.chip, 4.0)) == 0.0


def test_twice_as_many_full_rounds_take_twice_as_long_beyond_the_start():
    # tiles of one head and 128 queries, 132 units: 1, 2 and 4 rounds
    pure = timed(H200.with_constants({"attention_style": 0.001}), None)
    one, two, four = (
        pure.estimate(prefill(batch=132 * n, heads=1, kv_heads=1, kv_len=8192)).seconds for n in (1, 2, 4)
    )
    assert four - two == pytest.approx(2 * (two - one), rel=1e-6)


def test_backward_does_five_products_for_two():
    forward = prefill(batch=8, q_len=4096, kv_len=4096)
    work = replace(forward.work, matmul_flops=2.5 * forward.work.matmul_flops)
    backward = replace(forward, attrs={**forward.attrs, "backward": True}, work=work)
    device = timed(H200, None)
    ratio = device.estimate(backward).seconds / device.estimate(forward).seconds
    assert 1.5 < ratio < 2.5


@settings(max_examples=100, deadline=None)
@given(batch=st.integers(1, 64), heads=HEADS, dim=DIMS, q_len=st.integers(1, 3000), more=st.integers(0, 3000),
       causal=st.booleans(), style=STYLES)  # fmt: skip
def test_no_prefill_beats_the_roofline(batch, heads, dim, q_len, more, causal, style):
    one = prefill(batch, *heads, dim, q_len, q_len + more, causal)
    for device in cards(style):
        for state in (None, Replay()):
            cost = timed(device, state).estimate(one)
            assert max(cost.busy.values()) <= cost.seconds * (1 + 1e-12)
            if state is None:
                assert cost.seconds >= roofline_seconds(device.card, one)[0]


@settings(max_examples=100, deadline=None)
@given(batch=st.integers(1, 512), heads=HEADS, dim=DIMS, kv_len=st.integers(1, 40000), style=STYLES)
def test_no_decode_beats_the_roofline(batch, heads, dim, kv_len, style):
    one = decode(batch, *heads, dim, kv_len)
    for device in cards(style):
        cost = timed(device, None).estimate(one)
        assert max(cost.busy.values()) <= cost.seconds * (1 + 1e-12)
        assert cost.seconds >= roofline_seconds(device.card, one)[0]


@settings(max_examples=100, deadline=None)
@given(batch=st.integers(1, 64), heads=HEADS, dim=DIMS, q_len=st.integers(2, 3000), causal=st.booleans(),
       style=STYLES, grown=st.sampled_from(["batch", "q_len", "head_dim"]))  # fmt: skip
def test_more_prefill_takes_no_less_time(batch, heads, dim, q_len, causal, style, grown):
    sizes = {"batch": batch, "heads": heads[0], "kv_heads": heads[1], "head_dim": dim, "q_len": q_len, "kv_len": q_len}
    double = {**sizes, grown: 2 * sizes[grown]}
    if grown == "q_len":
        double["kv_len"] = double["q_len"]
    for device in cards(style):
        few, many = (timed(device, None).estimate(prefill(**one, causal=causal)).seconds for one in (sizes, double))
        assert many >= few * (WIDER if device.card is A100.card and grown == "head_dim" else 0.99)


@settings(max_examples=100, deadline=None)
@given(batch=st.integers(1, 300), heads=HEADS, dim=DIMS, kv_len=st.integers(1, 20000), style=STYLES,
       grown=st.sampled_from(["batch", "kv_len", "head_dim"]))  # fmt: skip
def test_more_decode_takes_no_less_time(batch, heads, dim, kv_len, style, grown):
    sizes = {"batch": batch, "heads": heads[0], "kv_heads": heads[1], "head_dim": dim, "kv_len": kv_len}
    for device in cards(style):
        one = timed(device, None)
        few, many = (one.estimate(decode(**size)).seconds for size in (sizes, {**sizes, grown: 2 * sizes[grown]}))
        # FlashAttention cuts keys for idle units, or a half, a quarter, an eighth of them, in whole blocks of keys: on
        # a B200, 5,390 keys of two groups come in 15 parts, of four groups in 22, which take 2.5 % less
        least = 0.97 if device.card is B200.card and style == 1.0 else 0.99
        least = WIDER if device.card is A100.card and grown == "head_dim" else least
        # cuDNN splits from 513 keys on, with wide heads a little late: an H200 takes 10.8 us for 384 keys, 10.5 for 523
        assert many >= few * (least if dim <= 128 or style == 1.0 else 0.85)


def test_half_the_main_bandwidth_slows_decode_and_not_long_prefill():
    chip = replace(H200.chip, main=replace(H200.chip.main, bandwidth=H200.chip.main.bandwidth / 2))
    slow = timed(H200, None)
    slow.chip = replace(chip, fitted=slow.chip.fitted)
    fast = timed(H200, None)
    read = decode(batch=64, kv_len=8192)
    assert slow.estimate(read).seconds > 1.8 * fast.estimate(read).seconds
    long = prefill(batch=1, q_len=8192, kv_len=8192)
    assert slow.estimate(long).seconds < 1.02 * fast.estimate(long).seconds


def test_a_batch_is_its_kernels_one_by_one():
    kernels = [prefill(batch, 16, 4, dim, length, length, causal) for batch in (1, 40) for dim in (64, 80, 256)
               for length in (5, 700) for causal in (True, False)]  # fmt: skip
    kernels += [decode(batch, 16, 4, dim, length) for batch in (1, 300) for dim in (64, 256) for length in (9, 5000)]
    together, apart = H200.estimate_all(kernels), [H200.estimate(one) for one in kernels]
    assert [cost.seconds for cost in together] == pytest.approx([cost.seconds for cost in apart], rel=1e-12)
