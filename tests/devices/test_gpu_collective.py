"""Collectives of the GPU family: which protocol sends what, and the laws of their times."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.device import load_device
from hwsim.devices.gpu import Gpu
from hwsim.devices.gpu.peers import FUNCTIONS, LL, LOOP_BYTES, QUEUED_COPY, SIMPLE, Sending
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Launch

H100 = Gpu(load_device("nvidia-h100-sxm", calibration=None).card)
NVLINK = 450e9
OPS = st.sampled_from(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])


def sending(op: str, nbytes: int, ranks: int = 2, launch: Launch = Launch.GRAPH) -> Sending:
    spec = {"op": op, "bytes": nbytes, **({} if op == "copy_peer" else {"ranks": ranks})}
    sent = H100._outside.of(spec_kernel(spec, H100, launch)).peers
    assert sent is not None
    return sent


def seconds(op: str, nbytes: int, ranks: int = 2, launch: Launch = Launch.GRAPH) -> float:
    spec = {"op": op, "bytes": nbytes, **({} if op == "copy_peer" else {"ranks": ranks})}
    return H100.estimate(spec_kernel(spec, H100, launch)).seconds


def test_the_protocol_changes_where_nccls_own_estimates_cross():
    # 6.6 + 2 x 0.6 us + b / (0.313 x 450 GB/s) against 8.4 + 2 x 3.4 us + b / (0.8 x 450 GB/s): equal at 1.71 MB
    crossing = 7.4e-6 / (1 / (0.313 * NVLINK) - 1 / (0.8 * NVLINK))
    assert crossing == pytest.approx(1.71e6, rel=0.01)
    for factor, faster in ((0.98, LL), (1.02, SIMPLE)):
        sent = sending("all_reduce", 32 * round(factor * crossing / 32))
        assert min((LL, SIMPLE), key=sent.estimate) is faster


def test_a_queued_copy_is_its_start_and_its_bytes_over_the_link():
    real = H100.with_constants({"peer_share": 0.9, "peer_latency": 10e-6})
    sent = sending("copy_peer", 2**28, launch=Launch.EAGER)
    assert sent.seconds(real.chip) == pytest.approx(QUEUED_COPY * 10e-6 + 2**28 / (0.9 * NVLINK))


def test_far_beyond_a_loop_bytes_cost_what_the_function_reaches():
    for op, function in FUNCTIONS.items():
        if op == "broadcast":
            continue
        few, many = (sending(op, size) for size in (2**30, 2**31))
        assert few.exchange.nbytes > LOOP_BYTES
        more = many.exchange.nbytes - few.exchange.nbytes
        assert many.seconds(H100.chip) - few.seconds(H100.chip) == pytest.approx(
            (1 + function.own) * more / (NVLINK * function.simple)
        )


@given(op=OPS, units=st.integers(1, 2**20), ranks=st.sampled_from([2, 4, 8]), launch=st.sampled_from(Launch))
def test_more_bytes_take_longer_and_never_beat_the_link(op, units, ranks, launch):
    nbytes = 128 * units
    once = seconds(op, nbytes, ranks, launch)
    sent = sending(op, nbytes, ranks, launch).exchange
    assert once >= sent.nbytes / NVLINK + sent.steps * sent.link.latency
    assert seconds(op, 2 * nbytes, ranks, launch) >= once
