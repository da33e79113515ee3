"""The conformance suite passes everything that ships, and catches what is wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.cost import Cost
from hwsim.device import card_names, load_device
from hwsim.devices.roofline import Roofline
from hwsim.graph import Kind
from hwsim.mapper import Kernel
from hwsim.mappers.eager import Eager
from hwsim.mappers.fused import Fused
from hwsim.testing import check_device, check_mapper

SHIPPED = [name for name in card_names() if name != "cpu-local"]
SN40L = load_device("sn40l")


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_card_is_sound(name):
    assert check_device(load_device(name)) == []


@pytest.mark.parametrize("mapper", [Eager(), Fused()], ids=lambda mapper: mapper.name)
@pytest.mark.parametrize("device", ["nvidia-h200", "sn40l", "amd-epyc-7742"])
def test_every_shipped_mapper_is_sound(mapper, device):
    assert check_mapper(mapper, load_device(device)) == []


class TooFast(Roofline):
    def estimate(self, kernel: Kernel) -> Cost:
        cost = super().estimate(kernel)
        return replace(cost, seconds=cost.seconds / 2)


class Forgetful(Roofline):
    def estimate(self, kernel: Kernel) -> Cost:
        return replace(super().estimate(kernel), traffic={})


class Shrinking(Roofline):
    def estimate(self, kernel: Kernel) -> Cost:
        cost = super().estimate(kernel)
        return replace(cost, seconds=1.0 + 1 / (1 + kernel.nbytes))


class Moody(Roofline):
    calls = 0

    def estimate(self, kernel: Kernel) -> Cost:
        Moody.calls += 1
        cost = super().estimate(kernel)
        return replace(cost, seconds=cost.seconds * (1 + Moody.calls))


class Anywhere(Roofline):
    def estimate(self, kernel: Kernel) -> Cost:
        known = tuple(replace(flow, memory="hbm") for flow in kernel.flows)
        return super().estimate(replace(kernel, flows=known))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (TooFast, "at its peak"),
        (Forgetful, "less than the kernel's"),
        (Shrinking, "doubled only"),
        (Moody, "a second estimate differs"),
        (Anywhere, "no HwsimError"),
    ],
)
def test_a_wrong_device_is_caught(wrong, complaint):
    assert any(complaint in problem for problem in check_device(wrong(SN40L.card)))


class Dropping(Eager):
    """Forgets the last kernel."""

    def schedule(self, graph, device, policy):
        schedule = super().schedule(graph, device, policy)
        return replace(schedule, steps=schedule.steps[:-1])


class Weightless(Eager):
    """Reads no weights."""

    def schedule(self, graph, device, policy):
        schedule = super().schedule(graph, device, policy)
        kernels = tuple(replace(kernel, flows=kernel.flows[:1]) for kernel in schedule.kernels)
        return replace(schedule, steps=kernels, peak={})


class Lossy(Eager):
    """Leaves out the arithmetic of matrix products."""

    def schedule(self, graph, device, policy):
        schedule = super().schedule(graph, device, policy)
        kernels = (
            replace(kernel, work=replace(kernel.work, matmul_flops=0.0)) if kernel.kind is Kind.MATMUL else kernel
            for kernel in schedule.kernels
        )
        return replace(schedule, steps=tuple(kernels))


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [(Dropping, "kernels run"), (Weightless, "B of weights"), (Weightless, "peak memory"), (Lossy, "matmul_flops")],
)
def test_a_wrong_mapper_is_caught(wrong, complaint):
    assert any(complaint in problem for problem in check_mapper(wrong(), SN40L))
