"""More work is never faster, whatever it grows by, on whole vectors and blocks: but where a library changes its kernel.

It does at few sizes of its own, and some of the kernels for smaller ones are slower. How many there are is told by its
source; measured rows show that silicon does there what the model says.
"""

from __future__ import annotations

from math import log, log2

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Device, Replay, estimate_all, load_device, timed
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
RUNGS = 100  # of a ladder from the smallest to the largest size
CHANGES = {  # sizes at which a kernel gives way to a faster one, at most
    ("softmax", "cols"): 3,  # SoftMax.cu: two rows of a warp, one, registers of a block, its shared memory
    ("sum", "cols"): 5,  # Reduce.cuh: vectors; lanes of a row, a power of two; its warps, its blocks
    ("cumsum", "cols"): 6,  # ScanUtils.cuh: lanes of a row, a power of two
    ("cumsum", "rows"): 3,  # one row is scanned by cub
    ("embedding", "tokens"): 1,  # Indexing.cu: up to 16 indices one by one
    ("gather_rows", "rows"): 1,
    ("transpose_copy", "rows"): 1,  # one row is a plain copy
}  # fmt: skip


@st.composite
def ladders(draw: st.DrawFn) -> tuple[str, str, list[Spec]]:
    """An op, one of its sizes, and specs in which that one grows from least to most."""
    op, name = draw(st.sampled_from([(op, name) for op, names in sorted(GROWN.items()) for name in names]))
    spec: Spec = {"op": op}
    for other in GROWN[op]:
        most = LARGEST[other] // STEPS[other]
        spec[other] = STEPS[other] * int(2 ** draw(st.floats(0, log2(most))))
    if op not in ("copy_d2d", "gather_rows"):
        spec["dtype"] = draw(st.sampled_from(["bf16", "fp32"]))
    spec |= {"embedding": {"vocab": 50000}, "gather_rows": {"table_bytes": 2**32}}.get(op, {})
    steps = np.unique(np.geomspace(1, LARGEST[name] // STEPS[name], RUNGS).astype(int))
    return op, name, [{**spec, name: STEPS[name] * int(step)} for step in steps]


def times(device: Device, specs: list[Spec]) -> npt.NDArray[np.float64]:
    launch = Launch.GRAPH if device.replay else Launch.EAGER
    return np.array([cost.seconds for cost in estimate_all(device, [spec_kernel(s, device, launch) for s in specs])])


@settings(max_examples=150, deadline=None)
@given(ladder=ladders(), device=st.sampled_from(CARDS), state=st.sampled_from(STATES))
def test_more_is_never_faster_but_where_a_library_changes_its_kernel(ladder, device, state):
    op, name, specs = ladder
    taken = times(timed(device, state), specs)
    falls = np.flatnonzero(taken[1:] < taken[:-1] * (1 - SLACK))
    assert len(falls) <= CHANGES.get((op, name), 0), [specs[1 + i][name] for i in falls]


@settings(max_examples=200, deadline=None)
@given(ladder=ladders(), device=st.sampled_from(CARDS), state=st.sampled_from(STATES), data=st.data())
def test_what_is_no_whole_vector_is_never_faster_than_the_whole_ones_around_it(ladder, device, state, data):
    _, name, specs = ladder
    below = data.draw(st.sampled_from(specs))
    step, width = STEPS[name], {"row_bytes": 16, "dim": 8}.get(name, 1)  # rows are read by vectors of 16 bytes
    rest = width * data.draw(st.integers(0, (step - 1) // width))
    rough, *whole = times(timed(device, state), [{**below, name: below[name] + more} for more in (rest, 0, step)])
    assert rough >= min(whole) * (1 - SLACK)


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
            sizes = [{**row.spec, field: row.spec[field] * factor} for field in GROWN[op] for factor in (2, 4, 8)]
            own, *others = times(device, [row.spec, *sizes])
            larger = min(others)
            if larger < 0.75 * own:
                nearer.append(abs(log(measured / own)) < abs(log(measured / larger)))
    assert len(nearer) >= 5
    assert np.mean(nearer) > 0.9
