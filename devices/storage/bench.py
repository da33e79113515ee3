"""What `hwsim storage` asks for, as plain data: loads in fio's words, and the drives that ship."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hwsim.devices.storage.analytic import analyse
from hwsim.devices.storage.card import DriveFile, drive_names, load_drive
from hwsim.devices.storage.drive import Cache, Drive
from hwsim.devices.storage.inside import Rates
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.progress import Tell, silent
from hwsim.devices.storage.report import report
from hwsim.devices.storage.simulate import simulate
from hwsim.devices.storage.state import SECTOR
from hwsim.devices.storage.trace import read_trace
from hwsim.errors import InputError, Problem
from hwsim.figures import figure_rows
from hwsim.yamlfile import load_yaml

names = drive_names
PILOT = 20_000


def bench(
    card: str,
    question: Mapping[str, Any],
    settings: list[str] | None = None,
    write_cache: bool = True,
    replay: Path | None = None,
    tell: Tell = silent,
) -> dict[str, Any]:
    """Run a load on the drive's card of that name or file; ``question`` has the fields of `Load` and ``runtime``.

    ``replay`` is a trace whose requests come at their own times, with at most ``iodepth`` of them in flight.
    ``tell`` hears of what takes long.
    """
    drive = prepared(card, settings, write_cache)
    asked = dict(question)
    runtime = asked.pop("runtime", None)
    load = Load(**{name: value for name, value in asked.items() if value is not None})
    if replay is not None:
        return replayed(drive, load, replay, tell)
    if runtime is not None:
        load = replace(load, number_ios=_requests_of(drive, load, runtime, tell))
    return report(simulate(drive, load, tell=tell), load, analyse(drive, load))


def cards() -> list[dict[str, Any]]:
    """The drives that ship: what they are, and what their flash and their link move."""
    rows = []
    for drive in map(load_drive, drive_names()):
        rates, nand = Rates(drive), drive.nand
        rows.append(
            {
                "name": drive.name,
                "title": drive.title,
                "cell": nand.cell,
                "capacity_bytes": drive.capacity,
                "channels": nand.channels,
                "dies": nand.channels * nand.chips * nand.dies,
                "flash_bandwidth_bytes_per_s": rates.inside(0),
                "link_bandwidth_bytes_per_s": drive.pcie.data_bandwidth,
            }
        )
    return rows


def show(name: str) -> dict[str, Any]:
    """The drive's card of that name or file with the mark and source of every figure."""
    drive = load_drive(name)
    return {"drive": drive.name, "title": drive.title, "figures": figure_rows(drive.figures, drive.sources)}


def schema() -> dict[str, Any]:
    """The JSON Schema of a drive's card."""
    from hwsim.study.schema import json_schema

    return json_schema(DriveFile, "hwsim drive")


def replayed(drive: Drive, load: Load, path: Path, tell: Tell = silent) -> dict[str, Any]:
    """The answer for a trace: what came out beside the response times that the trace has."""
    trace = read_trace(path)
    like = replace(load, rw="randrw", rwmixread=round(trace.reads * 100), bs=SECTOR, number_ios=len(trace.stream))
    outcome = simulate(drive, like, trace, tell)
    found = report(outcome, like, None)
    found["rw"] = found["jobs"][0]["jobname"] = "replay"
    measured = float(trace.measured.mean())
    return {**found, "bs": None, "replay": str(path), "wrapped": outcome.wrapped, "measured_lat_mean_s": measured}


def prepared(card: str, settings: list[str] | None, write_cache: bool) -> Drive:
    """The drive with the figures that the user changed."""
    drive = load_drive(card, changes(settings or []))
    return drive if write_cache else replace(drive, cache=Cache(0, 0.0, 0.0, 0))


def changes(settings: list[str]) -> dict[str, object]:
    """``nand.channels=16`` as figures by path."""
    found: dict[str, object] = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise InputError(Problem(file="--set", got=f"'{setting}'", expected="PATH=VALUE, such as nand.channels=16"))
        found[path.strip()], _ = load_yaml(text)
    return found


def _requests_of(drive: Drive, load: Load, runtime: float, tell: Tell) -> int:
    """How many requests a run of that many seconds takes, from a short one."""
    pilot = simulate(drive, replace(load, number_ios=min(PILOT, max(10 * load.depth, 1000))), tell=tell)
    return max(1, round(len(pilot.log) / pilot.seconds * runtime))
