"""Printing: data on stdout, as a table or as JSON; talk and progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from hwsim.units import format_quantity, format_seconds

WIDE = 1000  # columns of a table that goes into a pipe or a file
GAP = 3  # characters between two columns
FOLDED = 40  # characters above which a cell may take several lines
TITLES = {  # of columns, where the name is not what people say
    "latency_s": "latency",
    "tokens_per_s": "tokens/s",
    "energy_j": "energy",
    "bandwidth_bytes_per_s": "bandwidth",
    "peak_memory_bytes": "peak memory",
    "capacity_bytes": "capacity",
    "peak_flops_per_s": "peak rate",
    "read_bytes": "read",
    "write_bytes": "written",
    "bound": "bound by",
}


def say(text: str) -> None:
    """One line of talk on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(data: object) -> None:
    """``data`` on stdout, a list with one entry a line; what JSON has no number for (infinite, undefined) is null."""
    if isinstance(data, list) and data:
        print("[\n  " + ",\n  ".join(map(_on_one_line, data)) + "\n]")
    else:
        print(json.dumps(_finite(data), indent=2, ensure_ascii=False))


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)


def _on_one_line(entry: object) -> str:
    try:
        return _ENCODER.encode(entry)
    except (TypeError, ValueError):  # numbers of numpy, or none
        return json.dumps(_finite(entry), ensure_ascii=False)


def print_table(rows: Sequence[Sequence[object]], columns: Sequence[str], title: str = "") -> None:
    """A table on stdout below its title; columns of numbers are right-aligned."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if title:
        print(title)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    width = GAP
    for index, column in enumerate(columns):
        cells = [str(row[index]) for row in rows]
        longest = max(map(len, [column, *cells]))
        numeric = bool(cells) and all(map(_is_number, cells))
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(escape(column), justify=justify, overflow="fold", no_wrap=longest <= FOLDED)
        width += min(longest, FOLDED) + GAP
    for row in rows:
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in row))
    stdout = Console() if sys.stdout.isatty() else Console(width=WIDE, no_color=True)
    # A narrow terminal breaks the lines of a table; folding its numbers would make it unreadable.
    stdout.width = max(stdout.width, width)
    stdout.print(table, crop=False)


def records(frame: Any) -> list[dict[str, Any]]:
    """The rows of a data frame as plain data."""
    return [dict(zip(frame.columns, row, strict=True)) for row in frame.itertuples(index=False, name=None)]


# How a column is shown to people, by the end of its name; the first that fits.
_FORMATS: tuple[tuple[str, Callable[[float], str]], ...] = (
    ("tokens_per_s", lambda value: f"{value:,.4g}"),
    ("bytes_per_s", lambda value: format_quantity(value, "B/s")),
    ("flops_per_s", lambda value: format_quantity(value, "FLOP/s")),
    ("_bytes", lambda value: format_quantity(value, "B")),
    ("_traffic", lambda value: format_quantity(value, "B")),
    ("seconds", format_seconds),
    ("_s", format_seconds),
    ("joules", lambda value: format_quantity(value, "J")),
    ("_j", lambda value: format_quantity(value, "J")),
    ("flops", lambda value: format_quantity(value, "FLOP")),
)


def shown(name: str, value: Any) -> str:
    """A value of the column ``name`` with its unit."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | str):
        return str(value).lower() if isinstance(value, bool) else value
    for suffix, form in _FORMATS:
        if name.endswith(suffix):
            return form(float(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def print_columns(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], title: str = "") -> None:
    """The ``columns`` of ``rows`` as a table with units."""
    cells = [[shown(name, row.get(name)) for name in columns] for row in rows]
    print_table(cells, [TITLES.get(name, name) for name in columns], title)


def _is_number(cell: str) -> bool:
    text = cell.strip()
    return not text or text[0].isdigit() or (text[0] in "+-." and text[1:2].isdigit())


def _finite(data: Any) -> Any:
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    if hasattr(data, "item"):  # a numpy scalar
        data = data.item()
    return None if isinstance(data, float) and not math.isfinite(data) else data
