"""Copies over the host link: bandwidth, latency and directions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.device import load_device
from hwsim.devices.gpu import Gpu
from hwsim.devices.gpu.outside import GRAPH_READ, GRAPH_WRITE, INLINE_BYTES, Sent
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Launch

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)
PCIE = 64e9
EITHER = st.sampled_from(["copy_h2d_pinned", "copy_d2h_pinned"])


def seconds(device: Gpu, op: str, nbytes: int, launch: Launch = Launch.GRAPH) -> float:
    return device.estimate(spec_kernel({"op": op, "bytes": nbytes}, device, launch)).seconds


@pytest.mark.parametrize(("op", "wait"), [("copy_h2d_pinned", GRAPH_READ), ("copy_d2h_pinned", GRAPH_WRITE)])
def test_a_recorded_copy_takes_its_launch_a_share_of_the_start_and_its_bytes_over_the_link(op, wait):
    # neutral constants: 1.3 us, 1 us, and 64 GB/s of PCIe 5.0 x16
    assert seconds(H200, op, 2**28) == pytest.approx(1.3e-6 + wait * 1e-6 + 2**28 / PCIE)


def test_small_copies_to_the_device_travel_with_the_command():
    inline, larger = (seconds(H200, "copy_h2d_pinned", size, Launch.EAGER) for size in (INLINE_BYTES, INLINE_BYTES + 1))
    assert larger - inline > 0.9e-6


def test_share_and_latency_of_the_link_are_constants():
    real = H200.with_constants({"link_share": 0.5, "link_latency": 5e-6})
    assert seconds(real, "copy_d2h_pinned", 2**28, Launch.EAGER) == pytest.approx(1.3e-6 + 5e-6 + 2**29 / PCIE)


def test_uncalibrated_the_link_answers_as_the_card_says():
    slow = load_device("nvidia-h200", {"links.pcie.latency": "5 us"}, calibration=None)
    assert seconds(slow, "copy_d2h_pinned", 2**28, Launch.EAGER) == pytest.approx(1.3e-6 + 5e-6 + 2**28 / PCIE)


@given(op=EITHER, nbytes=st.integers(1, 2**30), launch=st.sampled_from(Launch))
def test_more_bytes_take_longer_and_never_beat_the_link(op, nbytes, launch):
    once = seconds(H200, op, nbytes, launch)
    assert once >= nbytes / PCIE
    assert seconds(H200, op, 2 * nbytes, launch) >= once


def test_another_link_that_takes_as_long_as_the_host_s_is_not_taken_for_it():
    """Of 1 s on each of two links, only the host's gains from what it sustains."""
    sent = Sent({"pcie": 1.0, "nvlink": 1.0}, host=1.0, host_link="pcie")
    assert sent.seconds(H200.with_constants({"link_share": 2.0}).chip) == 1.0
