"""MQSim 7ec40e3 at the same parameters, run on 2026-11-25: IOPS and mean latency over completions from 20 to 90 %.

20,000 requests, 8 channels of 4 chips unless said otherwise, one die, one plane, 256 blocks of 256 pages of 8 KiB,
reads of 75 us, programs of 750 us, 333 MT/s, PCIe of 4 lanes of 1 GB/s, the table wholly in memory.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from hwsim.devices.storage.card import load_drive
from hwsim.devices.storage.drive import Cache, Drive
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.report import report
from hwsim.devices.storage.simulate import simulate

ROWS: list[tuple[dict[str, int], str, int, int, float, float]] = [
    ({}, "randread", 4096, 1, 11248, 88.9),
    ({}, "randwrite", 16384, 1, 1282, 780.0),
    ({}, "write", 4096, 1, 1238, 807.8),
    ({}, "randread", 4096, 8, 78067, 102.5),
    ({}, "randread", 4096, 32, 191336, 167.3),
    ({}, "randwrite", 4096, 32, 24673, 1297.1),
    ({}, "read", 16384, 32, 92158, 347.2),
    ({}, "write", 4096, 128, 39641, 3225.8),
    ({"planes": 4}, "read", 8192, 64, 219869, 291.3),
    ({"planes": 4}, "randwrite", 8192, 64, 32795, 1950.1),
    ({"channels": 4, "chips": 2, "dies": 4}, "randread", 8192, 16, 55577, 287.8),
    ({"channels": 2, "chips": 8}, "randread", 8192, 128, 57284, 2230.5),
]
CACHED = [
    ("randwrite", 4096, 8, 32414, 246.8),
    ("write", 4096, 8, 48766, 164.0),
    ("write", 65536, 32, 3996, 8012.4),
    ("randwrite", 65536, 8, 3336, 2398.0),
]
AMPLIFICATION = [(0.28, 1.90444), (0.4, 1.42319), (0.5, 1.23941)]
"""128 blocks of 64 pages of 4 KiB in each of 4 planes, 100,000 random overwrites from fresh at depth 1."""


def drive(shape: dict[str, int], cached: bool = False) -> Drive:
    made = load_drive("mqsim-default", {"ftl.mapping_cache.size": 0})
    nand = replace(made.nand, **{"dies": 1, "planes": 1, "blocks": 256, **shape})  # type: ignore[arg-type]
    cache = replace(made.cache, underway=32 * 8192) if cached else Cache(0, 0.0, 0.0, 0)
    return replace(made, nand=nand, cache=cache)


def measured(made: Drive, load: Load) -> dict[str, Any]:
    return report(simulate(made, load), load, None)


@pytest.mark.parametrize(("shape", "rw", "bs", "depth", "iops", "mean"), ROWS)
def test_without_the_cache(shape: dict[str, int], rw: Any, bs: int, depth: int, iops: float, mean: float) -> None:
    found = measured(drive(shape), Load(rw, bs, depth, number_ios=20_000))
    tolerance = 0.02 if depth == 1 else 0.1 if "planes" in shape else 0.05
    assert found["iops"] == pytest.approx(iops, rel=tolerance)
    assert found["lat_mean_s"] * 1e6 == pytest.approx(mean, rel=tolerance)


@pytest.mark.parametrize(("rw", "bs", "depth", "iops", "mean"), CACHED)
def test_with_the_write_cache(rw: Any, bs: int, depth: int, iops: float, mean: float) -> None:
    found = measured(drive({}, cached=True), Load(rw, bs, depth, number_ios=20_000))
    assert found["iops"] == pytest.approx(iops, rel=0.2)
    assert found["lat_mean_s"] * 1e6 == pytest.approx(mean, rel=0.2)


@pytest.mark.parametrize(("spare", "expected"), AMPLIFICATION)
def test_write_amplification(spare: float, expected: float) -> None:
    made = drive({"channels": 2, "chips": 2, "blocks": 128, "pages": 64, "page": 4096})
    made = replace(made, ftl=replace(made.ftl, mapping_unit=4096, over_provisioning=spare))
    found = measured(made, Load("randwrite", 4096, 1, number_ios=100_000))
    assert found["flash"]["write_amplification"] == pytest.approx(expected, rel=0.1)


def test_the_table_in_flash_is_read_before_each_new_page() -> None:
    """MQSim with a mapping cache of 2 MiB: 6,050 IOPS and 165.3 us at depth 1, 110,803 and 288.8 at depth 32."""
    made = replace(drive({}), ftl=load_drive("mqsim-default").ftl)
    for depth, iops in ((1, 6050), (32, 110_803)):
        found = measured(made, Load("randread", 4096, depth, number_ios=20_000))
        assert found["iops"] == pytest.approx(iops, rel=0.05)
