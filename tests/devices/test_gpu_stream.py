"""Streams of the GPU family: blocks by hand, and laws of the physics that kernels without matrix products share."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.gpu import Gpu
from hwsim.devices.gpu.blocks import together
from hwsim.devices.gpu.stream import shape
from hwsim.graph import Kind, Role
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Flow, Kernel, Launch
from hwsim.work import Work

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)
CARDS = [load_device(name) for name in ("nvidia-h200", "nvidia-a100-80gb", "nvidia-rtx-4090")]
STATES = (None, Replay())
FORMATS = st.sampled_from(["bf16", "fp16", "fp32"])
NUMELS = st.integers(1, 2**28)


def seconds(device: Gpu, **spec: object) -> float:
    return device.estimate(spec_kernel(spec, device)).seconds


def blocks(**spec: object):
    return shape(spec_kernel(spec, H200))


def test_blocks_of_1024_elements_issue_the_instructions_of_their_arithmetic_and_operands():
    # add: one FLOP of two instructions and three operands of four each; a warp does 32 elements at a time
    x = blocks(op="add", numel=4096, dtype="bf16")
    assert (x.blocks, x.threads) == (4, 128)
    assert x.instructions == (2 + 3 * 4) * 1024 / 32


def test_what_is_left_over_goes_element_by_element():
    # 1,024 + 300 elements: the last block's threads have up to 3, each 14 instructions of 4 cycles after the last
    assert blocks(op="add", numel=1324, dtype="bf16").cycles == 3 * 14 * 4
    # whole blocks: 8 elements side by side, an instruction more than a cycle apart
    assert blocks(op="add", numel=2048, dtype="bf16").cycles == 8 * 14


def test_rows_with_scales_of_their_own_take_a_block_each_that_steps_over_2048_elements():
    one, two = (blocks(op="quantize_rows", rows=100, cols=cols, dtype="bf16") for cols in (2048, 2049))
    assert (one.blocks, one.threads) == (100, 512)
    assert two.instructions - one.instructions == 16 * 245
    assert two.again == 100 * 2049 * 2  # read for the maximum, then to be scaled


def test_a_large_stream_takes_the_bandwidth_of_main_memory():
    cold = H200.timed(None)
    moved = 3 * 2 * 2**28
    assert seconds(cold, op="add", numel=2**28, dtype="bf16") == pytest.approx(moved / 4.8e12, rel=0.15)


def test_a_transpose_reads_a_sector_for_every_element():
    wide = H200.timed(None)
    plain = seconds(wide, op="copy_d2d", bytes=2**28)
    across = seconds(wide, op="transpose_copy", rows=8192, cols=16384, dtype="bf16")
    # 32 bytes and more from the cache for two wanted: 2^27 sectors at 9.7 TB/s
    assert across > 2**27 * 32 / 9.7e12 > plain


def test_few_elements_are_transposed_by_as_many_threads_at_once():
    """Threads of a block take up to four elements, 128 apart, one after the other."""
    waits = [blocks(op="transpose_copy", rows=4, cols=cols, dtype="bf16").source_waits for cols in (24, 33, 1000)]
    assert waits == [1, 2, 4]


@pytest.mark.parametrize(("rows", "share"), [(64, 64 / 512), (192, (192 / 512 + 192 / 230) / 2), (4096, 4096 / 4134)])
def test_a_block_finds_the_sectors_of_its_own_columns_again_while_its_unit_holds_them(rows, share):
    """512 elements are 8 columns of 64 rows, whose sectors of 16 columns hold them all: 44 bytes for 8 elements.

    Half of 192 rows are kept beside those of other blocks.
    """
    x = blocks(op="transpose_copy", rows=rows, cols=1024, dtype="bf16")
    read = 32 * rows * 1024
    assert x.again + read == pytest.approx(44 * share * rows * 1024, rel=0.002)
    assert x.again + x.idle + read == pytest.approx(44 * rows / (rows + 38) * rows * 1024)


def test_a_row_transposed_is_a_copy():
    copy = shape(spec_kernel({"op": "transpose_copy", "rows": 1, "cols": 4096, "dtype": "fp32"}, H200))
    assert copy.blocks == 4096 * 4 / 4096
    assert copy.again == 0


def test_copies_of_odd_sizes_in_a_graph_go_byte_by_byte():
    odd, even = 2**26 + 1, 2**26
    spec = {"op": "copy_d2d", "bytes": odd}
    assert (
        shape(spec_kernel(spec, H200, Launch.GRAPH)).instructions > 10 * blocks(op="copy_d2d", bytes=even).instructions
    )
    assert shape(spec_kernel(spec, H200, Launch.EAGER)).launches == 3


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=5), st.floats(1, 8))
def test_resources_side_by_side_take_between_the_longest_and_the_sum(parts, power):
    both = together(*[np.array([part]) for part in parts], power=power)[0]
    assert max(parts) * (1 - 1e-12) <= both <= sum(parts) * (1 + 1e-9)


@settings(max_examples=60, deadline=None)
@given(numel=NUMELS, op=st.sampled_from(["gelu", "silu", "add"]), fmt=FORMATS, device=st.sampled_from(CARDS))
def test_more_blocks_take_no_less_time(numel, op, fmt, device):
    whole = max(1, numel // 1024) * 1024
    for state in STATES:
        target = timed(device, state)
        assert seconds(target, op=op, numel=2 * whole, dtype=fmt) >= seconds(target, op=op, numel=whole, dtype=fmt)


@settings(max_examples=40, deadline=None)
@given(numel=NUMELS, op=st.sampled_from(["gelu", "add"]), fmt=FORMATS)
def test_fewer_units_and_less_bandwidth_are_never_faster(numel, op, fmt):
    slow = load_device("nvidia-h200", {"memories.hbm.bandwidth": "2.4 TB/s"}, calibration=None)
    small = load_device("nvidia-h200", {"compute.units": "66"}, calibration=None)
    spec = {"op": op, "numel": numel, "dtype": fmt}
    for state in STATES:
        base = seconds(timed(H200, state), **spec)
        assert seconds(timed(slow, state), **spec) >= base
        assert seconds(timed(small, state), **spec) >= base


def test_half_the_bandwidth_matters_to_what_comes_from_main_memory_only():
    slow = load_device("nvidia-h200", {"memories.hbm.bandwidth": "2.4 TB/s"}, calibration=None)
    large, small = ({"op": "add", "numel": size, "dtype": "bf16"} for size in (2**28, 2**20))
    assert seconds(timed(slow, Replay()), **large) > 1.8 * seconds(timed(H200, Replay()), **large)
    assert seconds(timed(slow, Replay()), **small) == seconds(timed(H200, Replay()), **small)


def test_a_batch_is_its_kernels_one_by_one():
    specs = [{"op": op, "numel": 3**k, "dtype": "bf16"} for op in ("gelu", "add") for k in range(3, 16)]
    specs += [{"op": "transpose_copy", "rows": 3**k, "cols": 100, "dtype": "fp32"} for k in range(8)]
    kernels = [spec_kernel(spec, H200) for spec in specs]
    assert H200.estimate_all(kernels) == [H200.estimate(kernel) for kernel in kernels]


def pointwise(function: str, numel: int, *flows: Flow) -> Kernel:
    return Kernel(function, Kind.ELEMENTWISE, {"function": function, "numel": numel}, Work(dtype="fp32"), flows)


def test_an_optimizer_of_halves_casts_gradients_and_weights():
    """AdamW of Llama 3.2 1B: an H100 takes 12.8 ms for fp32 masters, gradients and moments, 5.6 ms for the casts."""
    h100, count = Gpu(load_device("nvidia-h100-sxm").card), 1_235_814_400
    states = [Flow("hbm", 12.0 * count, write, role=Role.STATE) for write in (False, True)]

    def seconds_with(width: float) -> float:
        weights = Flow("hbm", width * count, True, role=Role.WEIGHT)
        return h100.estimate(pointwise("adamw", count, Flow("hbm", width * count), weights, *states)).seconds

    assert seconds_with(2) == pytest.approx(18.4e-3, rel=0.15)
    assert seconds_with(4) < 14e-3


def test_a_batch_norm_with_known_statistics_is_three_kernels():
    """Cast of the means, factors of the variances, the elements: 7.2 us of 14 x 14 x 256 bf16 on an H100.

    The small two are modelled as launches, of 1.05 us each; what they last besides makes the 5.3 us come out short.
    """
    h100, count = Gpu(load_device("nvidia-h100-sxm").card), 256 * 14 * 14
    norm = pointwise("batchnorm", count, Flow("hbm", 2.0 * count), Flow("hbm", 2.0 * count, True))
    assert shape(norm).launches == 3
    assert h100.estimate(norm).seconds == pytest.approx(7.2e-6, rel=0.27)
    fused = replace(norm, attrs={**norm.attrs, "fused": 2})
    assert shape(fused).launches == 1


def test_an_operand_that_is_read_across_comes_sector_by_sector():
    """A sum of 2,048 x 4,096 bf16 with one operand in another order: an H100 takes 68.5 us, 14 without."""
    h100, count = Gpu(load_device("nvidia-h100-sxm").card), 2048 * 4096
    add = spec_kernel({"op": "add", "numel": count, "dtype": "bf16"}, h100)
    across = replace(add, attrs={**add.attrs, "gaps": True, "across": True})
    assert h100.estimate(across).seconds == pytest.approx(68.5e-6, rel=0.2)
    fused = replace(across, attrs={**across.attrs, "fused": 2})
    assert h100.estimate(fused).seconds < 25e-6
