"""Measurement files: real timings of kernels, as CSV with a header that says where and how they were taken.

A row holds `op`, `spec` (the JSON object of the kernel interchange), `seconds_cold`, `seconds_warm` and, where it was
measured, `joules_warm`. A column `rotation` is optional.

Tables that are not ours to ship are read by plug-ins of the group "hwsim.tables": the source `aic:h200_sxm/vllm` is
what the plug-in `aic` makes of `h200_sxm/vllm`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast

from hwsim.errors import InputError, Problem, UnknownNameError
from hwsim.registry import data_files, load_plugin, plugins

TABLE_READERS = "hwsim.tables"
COLUMNS = ("op", "spec", "seconds_cold", "seconds_warm", "joules_warm")


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measured kernel or model. Seconds per call with cold and with warm caches, joules per warm call.

    ``rotation`` tells how warm: that many calls follow each other in a recorded graph, each with its own copy of the
    weights, so that weights are found in a cache only where all copies fit. Other operands are the same in all calls
    unless ``rotates_inputs``; outputs share one buffer. ``companions`` are the specs of further kernels that the same
    seconds cover, ``kernel`` is the library's name of what ran.
    """

    spec: Mapping[str, Any]
    seconds_cold: float | None
    seconds_warm: float | None
    joules_warm: float | None
    rotation: int = 1
    rotates_inputs: bool = False
    companions: tuple[Mapping[str, Any], ...] = ()
    kernel: str = ""

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


def split_rows(
    rows: Sequence[Measurement], parts: int = 10, part: int = 0
) -> tuple[tuple[Measurement, ...], tuple[Measurement, ...]]:
    """One of ``parts`` equal shares of the rows, such as a tenth to calibrate on, and all the others.

    A hash of the shape decides, whatever the order of the rows; the formats of one shape stay together.
    """
    share = [_digest(row.spec) % parts == part for row in rows]
    inside, outside = (
        tuple(row for row, taken in zip(rows, share, strict=True) if taken is wanted) for wanted in (True, False)
    )
    return inside, outside


def _digest(spec: Mapping[str, Any]) -> int:
    shape = "|".join(f"{key}={spec[key]}" for key in sorted(spec) if key != "dtype")
    return int.from_bytes(blake2b(shape.encode(), digest_size=8).digest())


def read_measurements(source: str | Path) -> Measurements:
    """A shipped file by name, any file by path, or a plug-in's table such as ``aic:h200_sxm``.

    Raises `InputError` with file and line on what cannot be read.
    """
    scheme, colon, table = str(source).partition(":")
    if colon and scheme in plugins(TABLE_READERS):
        return cast(Callable[[str], Measurements], load_plugin(TABLE_READERS, scheme))(table)
    shipped = data_files("hwsim.kernels", "measurements", ".csv")
    file: Traversable | Path = shipped[str(source)] if str(source) in shipped else Path(source)
    try:
        lines = file.read_text("utf-8").splitlines()
    except FileNotFoundError:
        if file.name != str(source) or file.name.endswith(".csv"):
            raise InputError(Problem("no such file", str(source))) from None
        raise UnknownNameError("measurements", str(source), shipped) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(source))) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"not UTF-8 text at byte {error.start}", str(source))) from None
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
            cold, warm, joules = (_number(row[name]) for name in COLUMNS[2:])
            yield Measurement(spec, cold, warm, joules, int(row.get("rotation") or 1))
        except (KeyError, ValueError) as error:
            raise InputError(Problem(f"not a measurement: {error}", file, number)) from None


def _number(text: str) -> float | None:
    return float(text) if text.strip() else None
