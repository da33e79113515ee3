"""Gathers, sorts and transforms of the GPU family: their grids by hand, and the laws of their times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.gpu import Gpu, gather, passes
from hwsim.graph import Graph, Kind, Op, Tensor
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Kernel, Placement
from hwsim.testing import roofline_seconds
from hwsim.work import work_of

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)


def embedding(tokens: int, dim: int, dtype: str = "bf16") -> Kernel:
    return spec_kernel({"op": "embedding", "vocab": 50000, "dim": dim, "tokens": tokens, "dtype": dtype}, H200)


def whole(kind: Kind, count: int, cols: int, dtype: str) -> Kernel:
    graph = Graph("g", {name: Tensor(name, (count, cols), dtype) for name in "xy"},
                  (Op(kind, ("x",), ("y",), {"rows": count, "cols": cols}),))  # fmt: skip
    work = work_of(graph.ops[0], graph)
    return Kernel(str(kind), kind, graph.ops[0].attrs, work, Placement("hbm").flows(work))


def test_rows_of_whole_vectors_take_a_block_per_index_and_4096_bytes():
    x = gather.shape(embedding(100, 4096))
    assert (x.blocks, x.threads) == (100 * 2, 256)
    assert gather.shape(embedding(100, 64)).threads == 32  # 128 bytes are 8 vectors, at least a warp


def test_a_paged_cache_takes_a_block_per_token_and_a_thread_per_key():
    write = {"op": "cache_write", "tokens": 300, "kv_heads": 2, "head_dim": 64, "dtype": "bf16"}
    x = gather.shape(spec_kernel(write, H200))
    assert (x.blocks, x.threads) == (300, 128)
    assert gather.shape(spec_kernel({**write, "kv_heads": 32}, H200)).threads == 512


def test_other_rows_go_element_by_element_eight_in_a_row():
    x = gather.shape(embedding(100, 1001))
    assert x.blocks == -(-100 * 1001 // 1024)
    assert x.source_waits == x.cache_waits == 8


def test_few_indices_are_gone_through_one_by_one():
    x = gather.shape(embedding(5, 4096))
    assert (x.blocks, x.source_waits) == (4096 / 128, 5)


def test_raw_rows_move_in_words():
    spec = {"op": "gather_rows", "rows": 1000, "row_bytes": 1028, "table_bytes": 1028 * 10000}
    assert gather.shape(spec_kernel(spec, H200)).blocks == -(-1000 * 257 // 1024)


def test_short_rows_cost_the_grains_that_they_touch():
    # 24 bytes at multiples of 8 touch (24 - 8) / 64 + 1 = 1.25 grains of 64 bytes
    spec = {"op": "gather_rows", "rows": 2**20, "row_bytes": 24, "table_bytes": 24 * 2**24}
    kernel = spec_kernel(spec, H200)
    moved = H200.timed(None).estimate(kernel).traffic["hbm"]
    assert moved == pytest.approx(2**20 * (1.25 * 64 + 24 + 8))


@settings(max_examples=80, deadline=None)
@given(tokens=st.integers(17, 2**15), vectors=st.integers(1, 500), state=st.sampled_from([None, Replay()]))
def test_more_tokens_take_no_less_time_and_never_beat_the_roofline(tokens, vectors, state):
    device = timed(H200, state)
    few, many = (embedding(n, 8 * vectors) for n in (tokens, 2 * tokens))
    cost = device.estimate(few)
    assert device.estimate(many).seconds >= cost.seconds
    if state is None:
        assert cost.seconds >= roofline_seconds(H200.card, few)[0]


def test_a_sort_passes_once_per_eight_bits_of_its_keys():
    bf16, fp32 = (passes.sort(whole(Kind.SORT, 10, 2**20, dtype)) for dtype in ("bf16", "fp32"))
    assert (bf16.launches, fp32.launches) == (2, 4)
    assert bf16.again == 10 * 2**20 * 2 * 2  # the second pass reads and writes all again


def test_a_transform_passes_once_per_4096_points():
    assert passes.fft(whole(Kind.FFT, 10, 4096, "fp32")).launches == 1
    assert passes.fft(whole(Kind.FFT, 10, 8192, "fp32")).launches == 2
    assert passes.fft(whole(Kind.FFT, 10, 4096**2, "fp32")).launches == 2


def test_passes_that_overflow_the_cache_come_from_main_memory():
    cost = H200.estimate(whole(Kind.SORT, 10, 2**24, "fp32"))
    assert cost.traffic["hbm"] == 4 * 2 * 10 * 2**24 * 4
