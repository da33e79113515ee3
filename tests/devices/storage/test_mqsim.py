"""MQSim 7ec40e3 at the same parameters: rows of tests/oracle, whose heads say how they were run; nothing is fitted."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hwsim.devices.storage.card import load_drive
from hwsim.devices.storage.drive import Cache, Drive
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.report import report
from hwsim.devices.storage.simulate import simulate
from hwsim.devices.storage.state import TICKS
from hwsim.devices.storage.things import Log

ORACLE = Path(__file__).parents[2] / "oracle"


def rows(name: str) -> list[dict[str, str]]:
    """The rows of a file of measurements."""
    return list(csv.DictReader(line for line in (ORACLE / name).open() if not line.startswith("#")))


WINDOW, WHOLE = rows("storage_mqsim_window.csv"), rows("storage_mqsim.csv")
AMPLIFICATION = [(0.28, 1.90444), (0.4, 1.42319), (0.5, 1.23941)]
"""128 blocks of 64 pages of 4 KiB in each of 4 planes, 100,000 random overwrites from fresh at depth 1."""


def drive(shape: dict[str, int], cached: bool = False) -> Drive:
    made = load_drive("mqsim-default", {"ftl.mapping_cache.size": 0})
    nand = replace(made.nand, **{"dies": 1, "planes": 1, "blocks": 256, **shape})  # type: ignore[arg-type]
    cache = replace(made.cache, underway=32 * 8192) if cached else Cache(0, 0.0, 0.0, 0)
    return replace(made, nand=nand, cache=cache)


def measured(made: Drive, load: Load) -> dict[str, Any]:
    return report(simulate(made, load), load, None)


def of_row(row: dict[str, str]) -> tuple[Drive, Load, float]:
    """The drive and the load of a row, and how near its figures must be."""
    cached = row["cache"] == "1"
    shape = {name: int(row[name]) for name in ("channels", "chips", "dies", "planes") if name in row}
    load = Load(row["rw"], int(row["bs"]), int(row["depth"]), number_ios=20_000)  # type: ignore[arg-type]
    tolerance = 0.2 if cached else 0.1 if shape["planes"] == 4 else 0.02 if load.depth == 1 else 0.05
    return drive(shape, cached), load, tolerance


@pytest.mark.parametrize("row", WINDOW, ids=lambda row: "-".join(row.values()))
def test_rates_and_latencies_of_the_steady_part(row: dict[str, str]) -> None:
    made, load, tolerance = of_row(row)
    found = measured(made, load)
    assert found["iops"] == pytest.approx(float(row["iops"]), rel=tolerance)
    assert found["lat_mean_s"] * 1e6 == pytest.approx(float(row["latency_us"]), rel=tolerance)


@pytest.mark.parametrize("row", WHOLE, ids=lambda row: "-".join(row.values()))
def test_latencies_of_whole_runs(row: dict[str, str]) -> None:
    """MQSim tells whole microseconds."""
    made, load, tolerance = of_row(row)
    log = simulate(made, load).log
    mean = float((log[:, Log.DONE] - log[:, Log.ARRIVED]).mean()) / TICKS * 1e6
    assert mean == pytest.approx(float(row["latency_us"]), rel=tolerance, abs=1.0)


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
