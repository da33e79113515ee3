"""The table of all cases: human units, the SI value behind each, ratios to a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import pandas as pd

from hwsim.report.frames import COUNTS, INPUTS, count_text, failed, number_text, workload_text
from hwsim.report.mapper_labels import short_labels
from hwsim.units import format_quantity, format_seconds

MAX_ROWS = 1500


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, the exact value in its title, and what the column sorts by; ``long`` text has several lines."""

    text: str
    title: str = ""
    key: str = ""
    number: bool = False
    long: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Headers with units; rows of cells, each with the error of a failed case; inputs all share; what is left out."""

    headers: tuple[tuple[str, str], ...]
    rows: tuple[tuple[tuple[Cell, ...], str], ...]
    constant: str
    note: str


@dataclass(frozen=True, slots=True)
class _Column:
    header: str
    unit: str
    name: str
    write: Callable[[float], str]


def _prefixed(unit: str) -> Callable[[float], str]:
    return lambda value: format_quantity(value, unit)


FIRST = (
    _Column("latency", "s", "latency_s", format_seconds),
    _Column("energy", "J", "energy_j", _prefixed("J")),
    _Column("throughput", "tokens/s", "tokens_per_s", number_text),
    _Column("peak memory", "B", "peak_memory_bytes", _prefixed("B")),
)
LAST = (
    _Column("bandwidth", "B/s", "bandwidth_bytes_per_s", _prefixed("B/s")),
    _Column("arithmetic", "FLOP", "flops", _prefixed("FLOP")),
)


def summary_table(cases: pd.DataFrame, baseline: str | None) -> Table:
    """All cases, the failed ones among them; ``baseline`` names the device that ratios refer to."""
    inputs = ["model", "device", *(name for name in INPUTS if name in cases and cases[name].nunique() > 1)]
    first, last = _present(FIRST, cases), _present(LAST, cases)
    ratios = _ratios(cases, baseline) if baseline else pd.DataFrame(index=cases.index)
    headers = [("case", ""), *((name, "tokens" if name in COUNTS[1:] else "") for name in inputs)]
    headers += [(column.header, column.unit) for column in first]
    headers += [(name, f"/ {baseline}") for name in ratios.columns]
    headers += [("bound by", ""), *((column.header, column.unit) for column in last)]
    lost = set(failed(cases).index)
    mappers, shared = short_labels(cases["mapper"].astype(str)) if "mapper" in cases else ({}, "")
    rows: list[tuple[tuple[Cell, ...], str]] = []
    for (index, row), ratio in zip(cases.iloc[:MAX_ROWS].iterrows(), ratios.to_numpy(dtype=float), strict=False):
        number = str(row["case"])
        cells = [Cell(number, key=number, number=True), *(_input(name, row[name], mappers) for name in inputs)]
        if index in lost:
            rows.append((tuple(cells), str(row.get("error") or "failed")))
            continue
        cells += [_figure(column, row[column.name], _interval(row, column.name)) for column in first]
        cells += [_ratio(float(value)) for value in ratio]
        cells += [Cell(str(row.get("bound", ""))), *(_figure(column, row[column.name]) for column in last)]
        rows.append((tuple(cells), ""))
    note = f"The first {MAX_ROWS} of {len(cases)} cases; all are in cases.parquet." if len(cases) > MAX_ROWS else ""
    constant = {name: cases[name].iloc[0] for name in INPUTS if name in cases and name not in inputs}
    if "mapper" in constant:
        constant["mapper"] = mappers[str(constant["mapper"])]
    alike = ", ".join(filter(None, (workload_text(constant), shared)))
    return Table(tuple(headers), tuple(rows), alike, note)


def _present(columns: Sequence[_Column], cases: pd.DataFrame) -> list[_Column]:
    """The columns that hold anything."""
    return [column for column in columns if column.name in cases and cases[column.name].notna().any()]


def _input(name: str, value: object, mappers: Mapping[str, str]) -> Cell:
    if name in COUNTS:
        return Cell(count_text(value), f"{value}", str(value), number=True)
    if name == "mapper":
        return Cell(mappers[str(value)], str(value), long=True)
    return Cell(str(value))


def _interval(row: pd.Series, name: str) -> str:
    """The 90 % interval of a latency in words, where the device is calibrated."""
    low, high = row.get("latency_low_s"), row.get("latency_high_s")
    if name != "latency_s" or low is None or high is None or not (isfinite(low) and isfinite(high)):
        return ""
    return f", 90 % within {format_seconds(float(low))} to {format_seconds(float(high))}"


def _figure(column: _Column, value: float, more: str = "") -> Cell:
    if value is None or not isfinite(value):
        return Cell("–", "none", "", number=True)
    return Cell(column.write(float(value)), f"{value:.6g} {column.unit}{more}", repr(float(value)), number=True)


def _ratio(value: float) -> Cell:
    if not isfinite(value):
        return Cell("–", "the baseline has no such case", "", number=True)
    return Cell(f"{value:.2f}×", f"{value:.6g}", repr(float(value)), number=True)


def _ratios(cases: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Latency and energy over those of the same model and inputs on the baseline."""
    same = ["model", *(name for name in INPUTS if name in cases)]
    columns: Mapping[str, str] = {"latency_s": "latency", "energy_j": "energy"}
    of_baseline = cases[cases["device"] == baseline].drop_duplicates(same).set_index(same)[list(columns)]
    reference = cases[same].join(of_baseline, on=same)
    return pd.DataFrame({name: cases[column] / reference[column] for column, name in columns.items()})
