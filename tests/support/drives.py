"""Small drives for tests, and what is read from their runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, settings

from hwsim.devices.storage.card import load_drive
from hwsim.devices.storage.drive import Cache, Drive
from hwsim.devices.storage.simulate import Outcome
from hwsim.devices.storage.state import Ints, K

CALM = settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
UNCACHED = Cache(0, 0.0, 0.0, 0)
CACHED = Cache(2**20, 1e9, 1e-7, 0)
SPACE = 2**19


def small(**changes: Any) -> Drive:
    """A drive of 2 channels, 2 chips each, one die with 2 planes of 16 blocks of 8 pages of 4 KiB; ``changes`` go to
    the part that has a field of that name (``cache`` and ``mechanics`` are replaced whole)."""
    drive = load_drive("mqsim-default")
    nand = replace(
        drive.nand,
        channels=2,
        chips=2,
        dies=1,
        planes=2,
        blocks=16,
        pages=8,
        page=4096,
        reads=(50e-6,),
        programs=(500e-6,),
        erase=2e-3,
        bits=1,
    )
    ftl = replace(drive.ftl, mapping_unit=4096, reserve=2, start=0.2, victims=1, levelling=0, policy="greedy")
    ftl = replace(ftl, over_provisioning=0.4, mapping_cache=0)
    made = replace(drive, nand=nand, ftl=ftl, cache=UNCACHED, mechanics=type(drive.mechanics)())
    for name, value in changes.items():
        if name in ("cache", "mechanics", "bus", "nvme", "pcie", "energy"):
            made = replace(made, **{name: value})
        else:
            part = next(part for part in ("nand", "ftl") if hasattr(getattr(made, part), name))
            made = replace(made, **{part: replace(getattr(made, part), **{name: value})})
    return made


def rate(outcome: Outcome) -> float:
    """Requests per second over the whole run."""
    return len(outcome.log) / outcome.seconds


def table(state: Ints, at: K, size: int, count: int) -> Ints:
    return state[state[at] :][: count * size].reshape(count, size)
