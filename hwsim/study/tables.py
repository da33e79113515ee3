"""The columns of a results folder, and Parquet files whose bytes depend on their content only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.errors import InputError, Problem
from hwsim.study.files import writing

if TYPE_CHECKING:
    import pyarrow as pa

OK, FAILED = "ok", "failed"
ROW_GROUP = 2**18

INPUT_COLUMNS = {
    "case": "int64",
    "key": "string",
    "model": "string",
    "device": "string",
    "card": "string",
    "mapper": "string",
    "mapper_options": "string",
    "phase": "string",
    "batch": "int64",
    "prompt": "int64",
    "generate": "int64",
    "dtype": "string",
    "spill": "bool",
}
FIGURE_COLUMNS = {
    "latency_s": "float64",
    "latency_low_s": "float64",
    "latency_high_s": "float64",
    "analytic_s": "float64",
    "analytic_bound": "string",
    "energy_j": "float64",
    "tokens_per_s": "float64",
    "bandwidth_bytes_per_s": "float64",
    "peak_memory_bytes": "float64",
    "flops": "float64",
    "traffic_bytes": "float64",
    "bound": "string",
    "weight_bytes": "float64",
    "buffer_bytes": "float64",
    "state_bytes": "float64",
    "activation_bytes": "float64",
    "integration_error": "float64",
    "first_form": "bool",
    "unmodelled": "string",
    "notes": "string",
}
CASE_COLUMNS = {**INPUT_COLUMNS, "status": "string", "error": "string", **FIGURE_COLUMNS}
KERNEL_COLUMNS = {
    "case": "int64",
    "key": "string",
    "phase": "string",
    "context": "int64",
    "kernel": "string",
    "kind": "string",
    "path": "string",
    "dtype": "string",
    "launches": "float64",
    "seconds": "float64",
    "busy_seconds": "float64",
    "dynamic_joules": "float64",
    "bound": "string",
    "matmul_flops": "float64",
    "vector_flops": "float64",
    "special_ops": "float64",
    "unmodelled": "bool",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one case: its figures and its kernels by column, or the error."""

    key: str
    error: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)
    kernels: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """`ok` with figures, `failed` with an error."""
        return FAILED if self.error else OK

    def record(self) -> dict[str, Any]:
        """The outcome as a line of a journal."""
        return {"key": self.key, "error": self.error, "figures": self.figures, "kernels": self.kernels}


def columns_of(rows: Sequence[Mapping[str, Any]], missing: float | None = None) -> dict[str, list[Any]]:
    """Rows turned into columns; what a row lacks is ``missing``."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name, missing) for row in rows] for name in names}


def table(columns: Mapping[str, Sequence[Any]], known: Mapping[str, str]) -> pa.Table:
    """A table of the ``known`` columns in their order, then all others, which hold numbers, by name."""
    import pyarrow as pa

    count = max((len(values) for values in columns.values()), default=0)
    types = {**known, **dict.fromkeys(sorted(columns.keys() - known.keys()), "float64")}
    arrays = {
        name: pa.array(columns.get(name, [None] * count), pa.type_for_alias(kind)) for name, kind in types.items()
    }
    return pa.table(arrays)


def kernel_table(parts: Iterable[tuple[int, Outcome]]) -> pa.Table:
    """The kernels of outcomes, given with the number of their case."""
    joined: dict[str, list[Any]] = {"case": [], "key": []}
    for number, outcome in parts:
        before, count = len(joined["case"]), len(outcome.kernels.get("kernel", ()))
        given = {**outcome.kernels, "case": [number] * count, "key": [outcome.key] * count}
        for name in given.keys() - joined.keys():
            joined[name] = [None] * before
        for name, values in joined.items():
            values += given.get(name, [None] * count)
    return table(joined, KERNEL_COLUMNS)


def joined_kernels(tables: Sequence[pa.Table]) -> pa.Table:
    """One table in the order of the cases; columns that hold nothing are left out."""
    import pyarrow as pa
    from pyarrow import compute

    whole = pa.concat_tables(tables, promote_options="default")
    whole = whole.take(compute.sort_indices(whole["case"]))
    extra = sorted(set(whole.column_names) - KERNEL_COLUMNS.keys())
    kept = [name for name in extra if whole[name].null_count < len(whole)]
    return whole.select([*KERNEL_COLUMNS, *kept])


def read_table(path: Path) -> pa.Table | None:
    """A stored table, None where there is none yet; a damaged file is an `InputError`."""
    import pyarrow as pa
    from pyarrow import parquet

    if not path.exists():
        return None
    try:
        return parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        advice = "delete it, its cases are then simulated again"
        raise InputError(Problem(f"not a readable results file ({error})", str(path), expected=advice)) from None


def write_tables(contents: Mapping[Path, pa.Table]) -> None:
    """Store all tables or none of them."""
    from pyarrow import parquet

    partials = {path: path.with_suffix(".partial") for path in contents}
    for path, content in contents.items():
        with writing(path):
            parquet.write_table(content.combine_chunks(), partials[path], row_group_size=ROW_GROUP, compression="zstd")
    for path, partial in partials.items():
        with writing(path):
            partial.replace(path)
