"""What a run of measurements writes: cases, rows, and the CSV file that they are appended to."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

from hwsim.kernels.families import Family, Fields
from hwsim.kernels.timers import Spread

COLUMNS = (
    "op",
    "spec",
    "seconds_cold",
    "cold_p10",
    "cold_p90",
    "seconds_warm",
    "warm_p10",
    "warm_p90",
    "joules_warm",
    "repeats",
)
BY_HOST = ("eager", "onnxruntime")


@dataclass(frozen=True, slots=True)
class Case:
    """One op spec to measure, how its family is run, and whether its energy is measured."""

    op: str
    fields: Fields
    family: Family
    with_energy: bool

    @property
    def spec(self) -> str:
        """The interchange object as compact JSON with sorted keys: the identity of a row."""
        return json.dumps({"op": self.op, **self.fields}, sort_keys=True, separators=(",", ":"))

    @property
    def with_gradients(self) -> bool:
        """Whether the call runs a backward pass."""
        return self.fields.get("pass_") == "fwd+bwd" or self.fields.get("phase") == "train"

    @property
    def eager(self) -> bool:
        """Whether the host launches each call, rather than a graph."""
        return self.family.eager or self.fields.get("mode") in BY_HOST


@dataclass(frozen=True, slots=True)
class Row:
    """One measured case: seconds cold and warm with their spread, joules of a warm call."""

    case: Case
    cold: Spread | None
    warm: Spread
    joules: float | None
    repeats: int

    def cells(self) -> list[str]:
        """The row's CSV cells in the order of COLUMNS; empty where nothing was measured."""
        times = [
            f"{seconds:.6g}" if seconds is not None else ""
            for spread in (self.cold, self.warm)
            for seconds in ((spread.median, spread.p10, spread.p90) if spread else (None, None, None))
        ]
        joules = "" if self.joules is None else f"{self.joules:.6g}"
        return [self.case.op, self.case.spec, *times, joules, str(self.repeats)]


class RowFile:
    """The CSV that a run appends to, one flushed line per row; ValueError where it is another device's."""

    def __init__(self, path: Path, device: str, header: Iterable[str], seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole_lines(path)
        recorded = next((line for line in lines if line.startswith("# device: ")), None)
        if recorded not in (None, f"# device: {device}"):
            raise ValueError(f"{path} is of '{recorded}', this is '{device}': choose another --out")
        table = [line for line in lines if not line.startswith("#")]
        self.done = {row["spec"] for row in csv.DictReader(table)}
        self._file: TextIO = path.open("a", newline="")
        self._file.write(f"# date: {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}, seed {seed}\n")
        self._file.write(f"# device: {device}\n")
        self._file.writelines(f"# {line}\n" for line in header)
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not table:
            self._writer.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        """Append a row and flush it."""
        self._writer.writerow(row.cells())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file; a last line that was cut off while being written is removed from it."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return whole.decode().splitlines()
