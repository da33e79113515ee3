"""Conformance of mappers that move data: what is sound passes, what is wrong is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hwsim.graph import Repeat, Role
from hwsim.mapper import Flow, Kernel, Policy, Schedule, Transfer, Wait
from hwsim.mappers.eager import Recorded
from hwsim.simulation import load_mapper
from hwsim.systemfile import load_system
from hwsim.testing import check_mapper, sample_graphs

SYSTEM = {"gpu": "nvidia-a6000", "cpu": "amd-epyc-7742", "storage": ["inst-csd"]}


@pytest.fixture(scope="module")
def system():
    return load_system(SYSTEM)


class Streamed:
    """The kernels of `recorded`; weights lie with the CPU and come layer by layer into two buffers."""

    name = "streamed"
    source, target = "cpu.ddr", "gddr6"
    loads_wait, kernels_wait = True, True

    def schedule(self, graph, device, policy: Policy) -> Schedule:
        made = Recorded().schedule(graph, device, policy)
        steps, repeats, at = [], [], []
        for index, kernel in enumerate(made.kernels):
            at.append(len(steps))
            nbytes = sum(flow.nbytes for flow in kernel.flows if flow.role is Role.WEIGHT)
            waits = (Wait(len(steps) + 1, 2),) if self.loads_wait and made.counts[index] > 1 else ()
            steps.append(Transfer("load", nbytes, self.source, self.target, waits=waits))
            steps.append(replace(kernel, waits=(Wait(len(steps) - 1),) if self.kernels_wait else ()))
        at.append(len(steps))
        for repeat in made.repeats:
            repeats.append(Repeat(at[repeat.start], at[repeat.stop], repeat.count, repeat.shared))
        weights = {tensor.name: {"cpu.ddr": 1.0} for tensor in graph.of_role(Role.WEIGHT)}
        placement = replace(made.placement, shares={**made.placement.shares, **weights})
        return self.changed(replace(made, steps=tuple(steps), repeats=tuple(repeats), placement=placement))

    def changed(self, schedule: Schedule) -> Schedule:
        return schedule


def test_a_sound_schedule_has_no_problems(system):
    assert check_mapper(Streamed(), system) == []


@pytest.mark.parametrize(
    ("mapper", "options"),
    [
        ("offload", {"weights": [0.2, 0.8, 0.0], "cache": [0.0, 1.0, 0.0]}),
        ("offload", {"weights": [0.0, 0.5, 0.5], "activations": [0.0, 1.0, 0.0]}),
        ("tiered", {}),
        ("instorage", {}),
        ("fused", {}),
    ],
)
def test_our_mappers_are_sound_on_a_system(system, mapper, options):
    assert check_mapper(load_mapper(mapper, options), system) == []


def wrong(**changes):
    return type("Wrong", (Streamed,), changes)()


WRONG = [
    ({"target": "storage0.nand"}, "reads weights in gddr6, where none are placed, written or brought"),
    ({"source": "storage0.nand"}, "'load' reads weights in storage0.nand, where none are placed"),
    ({"source": "cpu.hbm"}, "transfer 'load' from 'cpu.hbm' to 'gddr6': unknown memory 'cpu.hbm'"),
    ({"source": "cpo.ddr"}, "unknown device 'cpo'; did you mean 'cpu'?"),
]


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[said for _, said in WRONG])
def test_data_that_is_not_there_or_has_no_way_is_told(system, changes, said):
    problems = check_mapper(wrong(**changes), system, sample_graphs()[:1])
    assert any(said in problem for problem in problems), problems


def circular(self, schedule):
    """The first load waits for the kernel that waits for it."""
    load, kernel, *others = schedule.steps
    return replace(schedule, steps=(replace(load, waits=(Wait(1),)), kernel, *others))


def endless(self, schedule):
    load, *others = schedule.steps
    return replace(schedule, steps=(replace(load, nbytes=float("inf")), *others))


def elsewhere(self, schedule):
    """A kernel of a drive that nobody has brought anything."""
    kernel = schedule.kernels[0]
    stray = Kernel(
        "stray", kernel.kind, kernel.attrs, kernel.work, (Flow("dram", 1.0, role=Role.STATE),), device="storage0"
    )
    return replace(schedule, steps=(*schedule.steps, stray), in_use=(*schedule.in_use, 0.0))


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (circular, "does not run: the schedule does not advance: step 0 'load' (iteration 0) waits for step 1"),
        (endless, "transfer 'load' moves inf B"),
        (elsewhere, "'stray' reads states in storage0.dram, where none are placed, written or brought"),
    ],
)
def test_waits_in_a_circle_and_wrong_bytes_are_told(system, changed, said):
    problems = check_mapper(wrong(changed=changed), system, sample_graphs()[:1])
    assert any(said in problem for problem in problems), problems
