"""`hwsim validate`: the device models against measurements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, records, say
from hwsim.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.measurements import Measurements
    from hwsim.validation import Comparison, Predictors

SHOWN = ("mape", "median", "worst")


def validate(
    measurements: Annotated[
        list[str], typer.Argument(metavar="MEASUREMENTS...", help="Shipped measurements by name, CSV files, or tables.")
    ],
    device: options.Device,
    calibration: options.Calibration = "auto",
    residual: Annotated[bool, typer.Option("--residual", help="Also learn a correction from the fitted rows.")] = False,
    threshold: Annotated[
        float | None, typer.Option(min=0, help="Exit with 1 if a family's MAPE in seconds is above (0.1: 10 %).")
    ] = None,
    write: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Predicted against measured, errors, worst rows (.html, .png, .svg).")
    ] = None,
    worst: Annotated[int, typer.Option(min=0, help="How many of the worst rows to explain.")] = 10,
    json: options.Json = False,
) -> None:
    """Predicted against measured on rows that no constant was fitted to, per family of kernels and end to end."""
    from hwsim.measurements import read_measurements
    from hwsim.validation import Predictors, error_table, explained, uncovered, worst_rows

    files = [read_measurements(name) for name in measurements]
    predictors = _with_residual(Predictors.of(device, options.calibration_of(calibration)), files, residual)
    found = {file.name: _compared(file, predictors) for file in files}
    tables = {name: error_table(comparisons) for name, comparisons in found.items()}
    if json:
        print_json({name: records(table) for name, table in tables.items()})
    for file in files:
        if not json:
            print_table(
                *_cells(tables[file.name]), f"{file.name} on {device}: mean, median and worst error, unseen rows"
            )
        for op, count in uncovered(file, found[file.name]).items():
            say(f"{file.name}: {count} rows of {op} have no prediction on {device}")
        for comparison in worst_rows([one for one in found[file.name] if one.unseen], worst):
            say(explained(comparison))
    _save(files, tables, found, predictors, write, figure)
    _gate(tables, threshold)


def _with_residual(predictors: Predictors, files: list[Measurements], wanted: bool) -> Predictors:
    """``predictors`` and, where ``wanted``, a correction, learned from the fitted rows of files that the calibration
    lists, so that the rows on which it is scored are others."""
    from hwsim.residual import Residual

    if not wanted:
        return predictors
    calibration = predictors.device.card.calibration
    fitted = [file for file in files if calibration and file.name in calibration.parts]
    if not fitted:
        say("no correction: it is learned from rows that the calibration was fitted to, and these files have none")
        return predictors
    return replace(predictors, residual=Residual.train(predictors.device, fitted))


def _compared(file: Measurements, predictors: Predictors) -> list[Comparison]:
    from hwsim.validation import compare_measurements

    comparisons = compare_measurements(file, predictors)
    if not comparisons:
        raise InputError(f"{file.name}: no row can be predicted on {predictors.device.card.name}")
    return comparisons


def _cells(table: pd.DataFrame) -> tuple[list[list[Any]], tuple[str, ...]]:
    """Rows and titles; a model that says nothing of any row has no columns."""
    from hwsim.report.accuracy import TAIL, ranked
    from hwsim.validation import MODELS

    models = [model for model in MODELS if table[f"{model}_mape"].notna().any()]
    rows = []
    for row in records(table):
        errors = [row[f"{model}_{figure}"] for model in models for figure in SHOWN]
        cells = ["" if error != error else f"{error:.1%}" for error in (*errors, row["inside"])]
        rows.append([row["quantity"], row["family"], row["cache"], row["rows"], *cells, *ranked(row)])
    titles = [title for model in models for title in (model, "median", "worst")]
    return rows, ("quantity", "family", "cache", "rows", *titles, *TAIL)


def _save(
    files: list[Measurements],
    tables: Mapping[str, pd.DataFrame],
    found: Mapping[str, list[Comparison]],
    predictors: Predictors,
    page: Path | None,
    figure: Path | None,
) -> None:
    if page is not None:
        from hwsim.report.accuracy import accuracy_page

        _write(page, accuracy_page(files, tables, predictors.device.card))
    if figure is not None:
        from hwsim.report.accuracy import write_accuracy

        write_accuracy([comparison for comparisons in found.values() for comparison in comparisons], tables, figure)
        say(f"wrote {figure}")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    say(f"wrote {path}")


def _gate(tables: Mapping[str, pd.DataFrame], threshold: float | None) -> None:
    """Exit with 1 where a family's times are further off than allowed."""
    over = [
        f"{name}: {row['family']} ({row['cache']}) is off by {row['predicted_mape']:.1%}"
        for name, table in tables.items()
        for row in records(table)
        if threshold is not None and row["quantity"] == "seconds" and row["predicted_mape"] > threshold
    ]
    for line in over:
        say(line)
    if over:
        raise typer.Exit(1)
