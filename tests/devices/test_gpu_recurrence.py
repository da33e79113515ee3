"""Recurrences of the GPU family: their pipelines and grids by hand, and the laws of their times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device, timed
from hwsim.devices.gpu import Gpu, recurrence
from hwsim.errors import UnknownNameError
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Kernel
from hwsim.testing import roofline_seconds
from hwsim.work import Access

H100 = Gpu(load_device("nvidia-h100-sxm").card)
RULES = ("gla", "ssd", "delta_rule", "gated_delta_rule", "kda", "gdn2")


def sequence(op: str, **changes: object) -> Kernel:
    sizes = {"batch": 2, "tokens": 640, "heads": 8, "d_k": 128, "d_v": 64, "dtype": "bf16", "pass_": "fwd"}
    return spec_kernel({"op": op, **sizes, **changes}, H100)


def decode(rule: str, **changes: object) -> Kernel:
    return sequence(f"recurrent_{rule}", **{"tokens": 1, "pass_": "decode", **changes})


def test_a_gated_sum_is_three_kernels_of_which_one_walks_the_chunks():
    x = recurrence.shape(sequence("chunk_ssd"))
    rows = 2 * 640 * 8
    # state pass: k, v in; output: q, k, v in, o out; a state of 128 x 64 for 64 tokens written and read, all of 2 bytes
    assert x.launches == 3
    assert x.chain_bytes == rows * 2 * (128 + 64 + 128 * 64 / 64)
    assert x.nbytes == rows * 2 * (2 * 128 + 2 * 64 + 128 * 64 / 64)
    assert x.steps == pytest.approx(0.35 * 10)


def test_what_does_both_passes_runs_both_pipelines():
    for rule in RULES:
        both = recurrence.stages_of(sequence(f"chunk_{rule}", pass_="fwd+bwd"))
        assert both == recurrence.FORWARD[rule] + recurrence.BACKWARD[rule]
        assert recurrence.stages_of(sequence(f"chunk_{rule}")) == recurrence.FORWARD[rule]


def test_a_decode_step_has_a_program_for_every_held_columns():
    assert recurrence.shape(decode("kda")).blocks == 2 * 8 * 64 / 32
    assert recurrence.shape(decode("delta_rule")).blocks == 2 * 8 * 64 / 8
    x = recurrence.shape(decode("ssd"))
    assert (x.blocks, x.launches) == (2 * 8 * 2, 3)  # two parts of 64 rows, their sum and its cast


SIZES = st.fixed_dictionaries({
    "batch": st.integers(1, 32), "heads": st.integers(1, 32),
    "d_k": st.sampled_from([64, 128, 256]), "d_v": st.sampled_from([64, 128, 256]),
})  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(rule=st.sampled_from(RULES), sizes=SIZES, tokens=st.integers(64, 8192), both=st.booleans(),
       doubled=st.sampled_from(["batch", "heads", "tokens", "d_k", "d_v"]))  # fmt: skip
def test_more_of_anything_takes_no_less_time_and_never_beats_the_roofline(rule, sizes, tokens, both, doubled):
    sizes = {**sizes, "tokens": tokens, "pass_": "fwd+bwd" if both else "fwd"}
    device = timed(H100, None)
    kernel = sequence(f"chunk_{rule}", **sizes)
    cost = device.estimate(kernel)
    assert device.estimate(sequence(f"chunk_{rule}", **{**sizes, doubled: 2 * sizes[doubled]})).seconds >= cost.seconds
    assert cost.seconds >= roofline_seconds(H100.card, kernel)[0]
    assert all(busy <= 1.0001 * cost.seconds for name, busy in cost.busy.items())


@settings(max_examples=60, deadline=None)
@given(rule=st.sampled_from(RULES), sizes=SIZES, state=st.sampled_from([None, Replay()]))
def test_larger_states_take_no_less_time(rule, sizes, state):
    device = timed(H100, state)
    kernel = decode(rule, **sizes)
    cost = device.estimate(kernel)
    for name in ("batch", "heads", "d_v"):
        assert device.estimate(decode(rule, **{**sizes, name: 2 * sizes[name]})).seconds >= 0.99 * cost.seconds
    if state is None:
        assert cost.seconds >= roofline_seconds(H100.card, kernel)[0]


def test_many_kernels_at_once_cost_what_they_cost_one_by_one():
    kernels = [sequence(f"chunk_{rule}") for rule in RULES] + [decode(rule) for rule in RULES]
    alone = [H100.estimate(kernel).seconds for kernel in kernels]
    np.testing.assert_allclose([cost.seconds for cost in H100.estimate_all(kernels)], alone)


@pytest.mark.parametrize("chunk", [0, 64])
def test_rules_run_the_kernels_of_their_library_and_others_are_refused(chunk):
    """fla runs linear attention and retention as simple_gla, here called ssd; no rule passes for another in silence."""
    kernel = sequence("chunk_ssd")

    def cost(rule):
        return H100.estimate(replace(kernel, attrs={**kernel.attrs, "rule": rule, "chunk": chunk}))

    assert cost("linear") == cost("retention") == cost("simple_gla") == cost("ssd") != cost("gla")
    with pytest.raises(UnknownNameError, match=r"gated_delta_ruel.*gated_delta_rule"):
        cost("gated_delta_ruel")


def with_accesses(kernel: Kernel, change: Callable[[Access], Access]) -> Kernel:
    return replace(kernel, work=replace(kernel.work, accesses=tuple(map(change, kernel.work.accesses))))


def test_the_last_state_is_copied_to_where_it_stays():
    """Mamba-2's state for 32 sequences, 64 heads of 128 x 64 fp32: an H100 copies it in 45.8 us."""
    kernel = decode("ssd", batch=32, heads=64)
    kept = with_accesses(kernel, lambda one: replace(one, tensor="first") if one.tensor == "last" else one)
    alone, both = H100.estimate(kernel), H100.estimate(kept)
    assert both.seconds - alone.seconds == pytest.approx(45.8e-6 + H100.chip["graph_launch_latency"], rel=0.1)
    assert both.traffic["hbm"] - alone.traffic["hbm"] == pytest.approx(2 * 32 * 64 * 128 * 64 * 4, rel=0.1)


def test_keys_that_heads_share_are_copied_to_each():
    """Mamba-2's B and C of 2,048 tokens for 64 heads: an H100 takes 75 us for each."""
    kernel = sequence("chunk_ssd", batch=1, tokens=2048, heads=64)
    shared = with_accesses(kernel, lambda one: replace(one, nbytes=one.nbytes / 64) if one.tensor in "qk" else one)
    longer = H100.estimate(shared).seconds - H100.estimate(kernel).seconds
    assert longer == pytest.approx(2 * (75e-6 + H100.chip["graph_launch_latency"]), rel=0.2)
