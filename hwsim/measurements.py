"""Measurement files: real timings of kernels, as CSV with a header that says where and how they were taken.

A row holds `op`, `spec` (the JSON object of the kernel interchange), `seconds_cold`, `seconds_warm` and, where it was
measured, `joules_warm`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from hwsim.errors import InputError, Problem, UnknownNameError
from hwsim.registry import data_files

COLUMNS = ("op", "spec", "seconds_cold", "seconds_warm", "joules_warm")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured kernel or model. Seconds per call with cold and with warm caches, joules per warm call."""

    spec: Mapping[str, Any]
    seconds_cold: float | None
    seconds_warm: float | None
    joules_warm: float | None

    @property
    def op(self) -> str:
        """The op's name."""
        return str(self.spec["op"])


@dataclass(frozen=True, slots=True)
class Measurements:
    """The rows of a file and its header lines (machine, driver, versions, date, method)."""

    name: str
    header: tuple[str, ...]
    rows: tuple[Measurement, ...]


def measurement_names() -> tuple[str, ...]:
    """Names of the measurement files that ship with hwsim."""
    return tuple(sorted(data_files("hwsim.kernels", "measurements", ".csv")))


def read_measurements(source: str | Path) -> Measurements:
    """A shipped file by name, or any file by path; `InputError` with file and line on what cannot be read."""
    shipped = data_files("hwsim.kernels", "measurements", ".csv")
    file: Traversable | Path = shipped[str(source)] if str(source) in shipped else Path(source)
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise UnknownNameError("measurements", str(source), shipped) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(Problem(f"cannot be read: {error}", str(source))) from None
    header = tuple(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    body = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and not line.startswith("#")]
    return Measurements(file.name.removesuffix(".csv"), header, tuple(_rows(body, str(source))))


def _rows(body: list[tuple[int, str]], file: str) -> Iterable[Measurement]:
    if not body:
        raise InputError(Problem("no rows", file, expected=f"a line of columns: {', '.join(COLUMNS)}"))
    names = next(csv.reader([body[0][1]]))
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(Problem(f"column '{missing[0]}' is missing", file, body[0][0], expected=", ".join(COLUMNS)))
    for number, line in body[1:]:
        row = dict(zip(names, next(csv.reader([line])), strict=False))
        try:
            spec = json.loads(row["spec"])
            yield Measurement(spec, *(_number(row[name]) for name in COLUMNS[2:]))
        except (KeyError, ValueError) as error:
            raise InputError(Problem(f"not a measurement: {error}", file, number)) from None


def _number(text: str) -> float | None:
    return float(text) if text.strip() else None
