"""More work is never faster, whatever it grows by: in one kernel of a library, on whole vectors and blocks.

A library changes its kernels at sizes of its own, and some of the smaller ones are slower. Where it does is written
here again, from its source; measured rows show that silicon does there what the model says.
"""

from __future__ import annotations

from math import ceil, log, log2

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hwsim.device import Device, Replay, load_device, timed
from hwsim.dtypes import dtype
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Launch
from hwsim.measurements import read_measurements

CARDS = [load_device(name) for name in ("nvidia-h200", "nvidia-a100-80gb", "nvidia-l40s")]
STATES = (None, Replay())
SLACK = 0.02  # the last block works for fewer than the others, which all count as the mean of theirs
Spec = dict[str, object]
STEPS = {  # sizes that whole vectors and blocks fill
    "cols": 16, "numel": 1024, "bytes": 1024, "dim": 16, "row_bytes": 64, "rows": 1, "tokens": 1,
}  # fmt: skip
GROWN = {
    "softmax": ("rows", "cols"), "layernorm": ("rows", "cols"), "rmsnorm": ("rows", "cols"), "sum": ("rows", "cols"),
    "cumsum": ("rows", "cols"), "transpose_copy": ("rows", "cols"), "gelu": ("numel",), "add": ("numel",),
    "copy_d2d": ("bytes",), "embedding": ("tokens", "dim"), "gather_rows": ("rows", "row_bytes"),
}  # fmt: skip
LARGEST = {"rows": 2**17, "cols": 2**17, "numel": 2**28, "bytes": 2**30, "tokens": 2**15, "dim": 2**14,
           "row_bytes": 2**16}  # fmt: skip


def power(count: int) -> int:
    """The power of two at or below ``count``."""
    return 2 ** int(log2(max(1, count)))


def way(spec: Spec) -> tuple[object, ...]:
    """Which kernel of its library a spec runs in."""
    op, sizes = spec["op"], {name: size for name, size in spec.items() if isinstance(size, int)}
    rows, cols = sizes.get("rows", 1), sizes.get("cols", 1)
    if op == "softmax":  # SoftMax.cu: warps of two rows or one, registers of a block, its shared memory, neither
        nbytes = cols * dtype(str(spec["dtype"])).bytes_for(1)
        return (cols <= 128, cols <= 2048, ceil(cols / 1024) <= 9, nbytes < 48 * 1024)
    if op == "sum":  # Reduce.cuh: lanes of a row, then warps or blocks of it where lanes have much to do
        across = min(power(cols // (4 if cols >= 128 else 1)), 512)
        down = min(power(rows), 512 // min(across, 32))
        across = min(across, 512 // down)
        each = ceil(cols / across)
        shared = each >= min(down * 16, 256)
        return (cols >= 128, across, down, shared, shared and ceil(each / down) >= 256)
    if op == "cumsum":  # ScanUtils.cuh: lanes of a row
        return (rows == 1, ceil(log2(cols)), ceil(log2(rows)))
    if op in ("embedding", "gather_rows"):  # Indexing.cu: up to 16 indices one by one; then a block a row of vectors
        row = sizes.get("row_bytes", 0) or sizes["dim"] * dtype(str(spec["dtype"])).bytes_for(1)
        return (sizes.get("tokens", rows) <= 16, row % 16 == 0)
    return (rows == 1,) if op == "transpose_copy" else ()  # a copy by the driver


@st.composite
def growths(draw: st.DrawFn) -> tuple[Spec, Spec]:
    """A spec, and one that is larger in one size and runs in the same kernel."""
    op = draw(st.sampled_from(sorted(GROWN)))
    spec: Spec = {"op": op}
    for name in GROWN[op]:
        most = LARGEST[name] // STEPS[name]
        spec[name] = STEPS[name] * int(2 ** draw(st.floats(0, log2(most))))
    if op != "copy_d2d" and op != "gather_rows":
        spec["dtype"] = draw(st.sampled_from(["bf16", "fp32"]))
    spec |= {"embedding": {"vocab": 50000}, "gather_rows": {"table_bytes": 2**32}}.get(op, {})
    name = draw(st.sampled_from(GROWN[op]))
    size = spec[name]
    assert isinstance(size, int)
    more = {**spec, name: size + STEPS[name] * draw(st.integers(1, max(1, size // STEPS[name])))}
    return spec, more


def seconds(device: Device, spec: Spec) -> float:
    launch = Launch.GRAPH if device.replay else Launch.EAGER
    return device.estimate(spec_kernel(spec, device, launch)).seconds


@settings(max_examples=300, deadline=None)
@given(pair=growths(), device=st.sampled_from(CARDS), state=st.sampled_from(STATES))
def test_more_is_never_faster_in_the_same_kernel(pair, device, state):
    few, more = pair
    assume(way(few) == way(more))
    target = timed(device, state)
    assert seconds(target, more) >= seconds(target, few) * (1 - SLACK)


@settings(max_examples=200, deadline=None)
@given(pair=growths(), device=st.sampled_from(CARDS), state=st.sampled_from(STATES), rest=st.floats(0, 1))
def test_what_is_no_whole_vector_is_never_faster_than_the_whole_ones_in_it(pair, device, state, rest):
    spec, grown = pair
    (name,) = (name for name, size in spec.items() if grown[name] != size)
    width = 4 if name == "row_bytes" else 1
    rough = {**spec, name: spec[name] + int(rest * (STEPS[name] - 1)) // width * width}
    assume(way(spec) == way(rough))
    target = timed(device, state)
    assert seconds(target, rough) >= seconds(target, spec) * (1 - SLACK)


@pytest.mark.parametrize("state", STATES, ids=["cold", "warm"])
@pytest.mark.parametrize("op", ["softmax", "layernorm", "rmsnorm", "sum", "cumsum", "embedding"])
def test_silicon_is_slower_where_the_model_says_that_more_is_faster(op, state):
    """Measured rows of which a larger one is predicted to take less than three quarters: few columns to a warp, odd
    ones, sums by single warps, few tokens, short running sums of many rows."""
    nearer = []
    for name in ("nvidia-h200", "nvidia-h100-sxm"):
        device = timed(load_device(name), state)
        for row in read_measurements(name).rows:
            measured = row.seconds_warm if state else row.seconds_cold
            if row.op != op or not measured:
                continue
            own = seconds(device, row.spec)
            sizes = [{**row.spec, field: row.spec[field] * factor} for field in GROWN[op] for factor in (2, 4, 8)]
            larger = min(seconds(device, size) for size in sizes)
            if larger < 0.75 * own:
                nearer.append(abs(log(measured / own)) < abs(log(measured / larger)))
    assert len(nearer) >= 5
    assert np.mean(nearer) > 0.9
