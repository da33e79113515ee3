"""Kernels that are timed together: their times add, their operands share the caches."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.companions import BESIDE, accompanied, together
from hwsim.device import Replay, load_device, timed
from hwsim.fitting import Calibratable
from hwsim.kernel_spec import spec_kernel
from hwsim.measured_kernels import measured_kernels
from hwsim.measurements import Measurement

H200 = load_device("nvidia-h200", calibration=None)
DECODE = {
    "op": "attention_decode",
    "batch": 4,
    "heads": 8,
    "kv_heads": 2,
    "head_dim": 64,
    "kv_len": 100,
    "dtype": "bf16",
}
WRITE = {"op": "cache_write", "tokens": 4, "kv_heads": 2, "head_dim": 64, "dtype": "bf16"}
COPY = {"op": "copy_d2d", "bytes": 4096}


def test_each_knows_what_the_others_keep_in_the_caches():
    # attention: q and y 2 x 4 KiB, k and v 200 KiB / 2; the write reads 4 x (2 x 2 x 64 x 2 + 8) B, the copy 4 KiB
    main, (write, copy) = together(spec_kernel(DECODE, H200), [spec_kernel(one, H200) for one in (WRITE, COPY)])
    reads = 4 * (512 + 8) + 4096
    assert main.attrs[BESIDE] == reads
    total = main.nbytes + reads
    assert (write.attrs[BESIDE], copy.attrs[BESIDE]) == (total - write.nbytes, total - copy.nbytes)
    alone, none = together(spec_kernel(DECODE, H200), [])
    assert BESIDE not in alone.attrs and none == ()


def test_times_of_companions_add_to_the_kernel_that_has_them():
    kernels = [spec_kernel(one, H200) for one in (DECODE, COPY, DECODE)]
    others = ((spec_kernel(WRITE, H200), spec_kernel(COPY, H200)), (), (spec_kernel(COPY, H200),))
    device = accompanied(timed(H200, Replay()), others)
    assert isinstance(device, Calibratable)
    decode, write, copy = (timed(H200, Replay()).estimate(spec_kernel(one, H200)) for one in (DECODE, WRITE, COPY))
    expected = [decode.seconds + write.seconds + copy.seconds, copy.seconds, decode.seconds + copy.seconds]
    assert [cost.seconds for cost in device.estimate_all(kernels)] == pytest.approx(expected)
    assert device.seconds(device.batches(kernels)) == pytest.approx(np.array(expected))
    slower = device.with_constants({"graph_launch_latency": 5e-6})
    launched = 5e-6 - H200.chip.fitted["graph_launch_latency"]
    assert slower.seconds(slower.batches(kernels)) == pytest.approx(np.array(expected) + np.array([3, 1, 2]) * launched)


def test_rows_with_companions_are_measured_kernels():
    row = Measurement(DECODE, None, 1e-5, None, companions=(WRITE,))
    (found,) = measured_kernels([row, Measurement(DECODE, None, 1e-5, None)], H200)
    assert [len(others) for others in found.companions] == [1, 0]
    with_write, without = found.on(H200).estimate_all(found.kernels)
    assert with_write.seconds > without.seconds
    assert len(found.only([1]).companions[0]) == 0


def test_a_footprint_shared_with_companions_misses_the_cache_earlier():
    # 30 MB of keys and values stay in an H200's 50 MiB, but not beside a copy of 100 MB
    spec = {**DECODE, "kv_len": 15000}
    main, _ = together(spec_kernel(spec, H200), [spec_kernel({"op": "copy_d2d", "bytes": 10**8}, H200)])
    device = timed(H200, Replay())
    assert device.estimate(main).traffic["hbm"] > device.estimate(spec_kernel(spec, H200)).traffic["hbm"]
