"""Row kernels of the GPU family: how torch launches them, by hand, and the laws of their times."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.gpu import Gpu, rows
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Kernel
from hwsim.testing import roofline_seconds

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)
OPS = st.sampled_from(["softmax", "layernorm", "rmsnorm", "sum", "cumsum"])
FORMATS = st.sampled_from(["bf16", "fp16", "fp32"])


def kernel(op: str, count: int, cols: int, dtype: str = "bf16") -> Kernel:
    return spec_kernel({"op": op, "rows": count, "cols": cols, "dtype": dtype}, H200)


def test_short_rows_of_a_softmax_share_a_block_of_four_warps():
    # up to 128 padded columns two rows a warp, else one
    assert rows.softmax(kernel("softmax", 800, 100)).blocks == 800 / 8
    assert rows.softmax(kernel("softmax", 800, 200)).blocks == 800 / 4
    assert rows.softmax(kernel("softmax", 800, 16)).blocks == 800 / 16  # and rows of 16 columns share its lanes


def test_long_rows_of_a_softmax_stay_in_registers_then_in_shared_memory_then_are_read_three_times():
    in_registers = rows.softmax(kernel("softmax", 10, 9216))
    shared = rows.softmax(kernel("softmax", 10, 16384))
    again = rows.softmax(kernel("softmax", 10, 32768))
    assert in_registers.threads * in_registers.registers == 65536  # leaves room for one block a unit
    assert rows.softmax(kernel("softmax", 10, 6144)).registers == 32  # up to six elements a thread: for two
    assert (shared.threads, shared.again) == (1024, 0)
    assert again.again == 2 * 10 * 32768 * 2


def test_a_norm_reads_its_rows_twice_and_takes_two_kernels_where_rows_are_no_whole_vectors():
    whole, odd = (rows.norm(kernel("layernorm", 7, cols)) for cols in (4096, 4097))
    assert (whole.blocks, whole.threads, whole.launches) == (7, 128, 1)
    assert whole.again == 7 * 4096 * 2
    assert whole.source_waits == 4096 / (128 * 4)
    assert odd.launches == 2


def test_a_reduction_gives_a_warp_each_row_until_lanes_have_256_elements():
    # 1,024 columns, 100 rows: vectors of 4 over 32 lanes x 16 rows, 32 elements a lane
    some = rows.reduce(kernel("sum", 100, 1024))
    assert (some.blocks, some.threads) == (7, 512)
    # 16,384 columns: 512 elements a lane are shared by 16 warps
    assert rows.reduce(kernel("sum", 100, 16384)).blocks == 100
    # one row of a million: 512 lanes, 2,048 elements each, that blocks share down to 16 elements a lane
    assert rows.reduce(kernel("sum", 1, 2**20)).cut == 2048 / 16


def test_a_running_sum_takes_all_lanes_a_row_where_its_unsigned_difference_wraps():
    # log2 of 64 columns and of 8,192 rows: (9 + 6 - 13) / 2 = 1, at least 4: 16 lanes, 32 rows a block
    assert rows.scan(kernel("cumsum", 8192, 64)).blocks == 8192 / 32
    # 16 columns: 9 + 4 - 16 < 0 wraps to 512 lanes for each of 65,536 rows
    assert rows.scan(kernel("cumsum", 65536, 16)).blocks == 65536


@settings(max_examples=100, deadline=None)
@given(op=OPS, count=st.integers(1, 2**16), cols=st.integers(1, 2**14), fmt=FORMATS)
def test_no_row_kernel_beats_the_roofline(op, count, cols, fmt):
    one = kernel(op, count, cols, fmt)
    for state in (None, Replay()):
        cost = timed(H200, state).estimate(one)
        assert max(cost.busy.values()) <= cost.seconds * (1 + 1e-12)
        if state is None:
            assert cost.seconds >= roofline_seconds(H200.card, one)[0]


@settings(max_examples=60, deadline=None)
@given(op=st.sampled_from(["softmax", "layernorm", "rmsnorm"]), count=st.integers(1, 2**15),
       cols=st.integers(1, 2**11), fmt=FORMATS)  # fmt: skip
def test_more_rows_take_no_less_time(op, count, cols, fmt):
    for state in (None, Replay()):
        device = timed(H200, state)
        few, many = (device.estimate(kernel(op, n, cols, fmt)).seconds for n in (count, 2 * count))
        assert many >= few * (1 - 1e-9)


@pytest.mark.parametrize("op", ["softmax", "layernorm", "rmsnorm", "sum", "cumsum"])
def test_long_rows_that_double_take_longer(op):
    device = timed(H200, None)
    times = [device.estimate(kernel(op, 4096, cols)).seconds for cols in (4096, 16384, 65536)]
    assert times == sorted(times)


def test_a_batch_is_its_kernels_one_by_one():
    kernels = [kernel(op, count, cols) for op in ("softmax", "rmsnorm", "sum", "cumsum")
               for count in (1, 50, 5000) for cols in (30, 1000, 12345)]  # fmt: skip
    assert H200.estimate_all(kernels) == [H200.estimate(one) for one in kernels]
