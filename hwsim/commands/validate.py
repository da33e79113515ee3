"""`hwsim validate`: the device models against measurements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, records, say
from hwsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.device import Device
    from hwsim.measurements import Measurements
    from hwsim.validation import Comparison

ERRORS = tuple(f"{model}_{figure}" for model in ("model", "roofline") for figure in ("mape", "median", "worst"))


def validate(
    measurements: Annotated[
        list[str], typer.Argument(metavar="MEASUREMENTS...", help="Shipped measurements by name, or CSV files.")
    ],
    device: options.Device,
    write: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    figure: Annotated[Path | None, typer.Option(help="Draw predicted against measured (.html, .png, .svg).")] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst rows to explain.")] = 10,
    json: options.Json = False,
) -> None:
    """Predicted against measured, per family of kernels and end to end."""
    from hwsim.device import load_device
    from hwsim.measurements import read_measurements
    from hwsim.validation import accuracy_page, error_table, explained, uncovered, worst_rows

    files = [read_measurements(name) for name in measurements]
    target = load_device(device)
    found = {file.name: _compared(file, target) for file in files}
    tables = {name: error_table(comparisons) for name, comparisons in found.items()}
    if json:
        print_json({name: records(table) for name, table in tables.items()})
    for file in files:
        if not json:
            print_table(*_cells(tables[file.name]), f"{file.name} on {device}: mean, median and worst error")
        for op, count in uncovered(file, found[file.name]).items():
            say(f"{file.name}: {count} rows of {op} have no prediction on {device}")
        for comparison in worst_rows(found[file.name], worst):
            say(explained(comparison))
    if write is not None:
        _write(write, accuracy_page(files, tables, target.card))
    if figure is not None:
        _draw([comparison for comparisons in found.values() for comparison in comparisons], figure)


def _compared(file: Measurements, device: Device) -> list[Comparison]:
    from hwsim.device import plain_roofline
    from hwsim.validation import compare_measurements

    comparisons = compare_measurements(file, device, plain_roofline(device.card))
    if not comparisons:
        raise InputError(f"{file.name}: no row can be predicted on {device.card.name}")
    return comparisons


def _cells(table: pd.DataFrame) -> tuple[list[list[Any]], tuple[str, ...]]:
    rows = [
        [row["quantity"], row["family"], row["cache"], row["rows"], *(f"{row[error]:.1%}" for error in ERRORS)]
        for row in records(table)
    ]
    titles = ("quantity", "family", "cache", "rows", "model", "median", "worst", "roofline", "median", "worst")
    return rows, titles


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    say(f"wrote {path}")


def _draw(comparisons: list[Comparison], path: Path) -> None:
    from hwsim.report.figures import scatter_figure, write_figure
    from hwsim.validation import to_frame

    frame = to_frame([comparison for comparison in comparisons if comparison.quantity == "seconds"])
    label: Mapping[str, Any] = {"label": frame["op"] + " " + frame["case"] + " (" + frame["cache"] + ")"}
    write_figure(scatter_figure(frame.assign(**label)), path)
    say(f"wrote {path}")
