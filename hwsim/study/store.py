"""The results folder of a study: journals while it runs, two Parquet files and run.json when it is done.

    cases.parquet     one row per case: key, inputs, status, error, figures (SI units), figures per memory
    kernels.parquet   one row per kernel and phase of every case, joined to the cases by the column ``case``
    run.json          the resolved study, versions, cards with their sources, host, times and counts
    journal-*.jsonl   finished cases of a run that has not ended yet; each is a line, written when the case ends

A killed run loses the cases in flight: the next one reads the journals. The Parquet files hold nothing that
changes from run to run, so that the same study gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hwsim.errors import InputError
from hwsim.study.cases import Plan
from hwsim.study.files import lock, read_journal, write_text, writing
from hwsim.study.tables import (
    CASE_COLUMNS,
    FAILED,
    OK,
    Outcome,
    columns_of,
    joined_kernels,
    kernel_table,
    read_table,
    table,
    write_tables,
)

if TYPE_CHECKING:
    import pyarrow as pa

CASES, KERNELS, RUN, LOCK = "cases.parquet", "kernels.parquet", "run.json", ".lock"
CHUNK = 500  # cases whose kernels are turned into columns at once


@dataclass(frozen=True, slots=True)
class Summary:
    """How many stored cases have figures and how many failed, and the ops without a formula by model."""

    ok: int
    failed: int
    unmodelled: Mapping[str, list[str]]

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]]) -> Summary:
        """The summary of rows of cases."""
        failed = sum(row["status"] == FAILED for row in rows)
        names: dict[str, set[str]] = {}
        for row in rows:
            if row.get("unmodelled"):
                names.setdefault(row["model"], set()).update(row["unmodelled"].split(", "))
        return cls(len(rows) - failed, failed, {model: sorted(found) for model, found in names.items()})


class Store:
    """A results folder, held by one run at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._lock = lock(folder / LOCK)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        (self.folder / LOCK).unlink(missing_ok=True)
        self._lock.close()

    def start_anew(self) -> None:
        """Drop the journals, and tables that are damaged; sound ones give way when the new ones are complete."""
        self._drop_journals()
        for name in (CASES, KERNELS):
            try:
                read_table(self.folder / name)
            except InputError:
                (self.folder / name).unlink()

    def _drop_journals(self) -> None:
        for path in _journals(self.folder):
            path.unlink(missing_ok=True)

    def compact(self, plan: Plan) -> Summary:
        """Write the Parquet files from what is stored and journalled."""
        numbers = {case.key: case.number for case in plan.cases}
        old = _rows(self.folder)
        new: dict[str, Outcome] = {}
        for outcome in _journalled(self.folder):
            if outcome.key in numbers and not (outcome.error and outcome.key in new):
                new[outcome.key] = Outcome(outcome.key, outcome.error, outcome.figures)
        found = {key: row for key, row in old.items() if key in numbers}
        found |= {key: {"status": o.status, "error": o.error, **o.figures} for key, o in new.items()}
        rows = [{**found[case.key], **plan.inputs(case)} for case in plan.cases if case.key in found]
        kept = {key: number for key, number in numbers.items() if key in old and key not in new}
        kernels = joined_kernels([self._kept_kernels(kept), *self._new_kernels(numbers, set(new))])
        cases = table(columns_of(rows), CASE_COLUMNS)
        write_tables({self.folder / KERNELS: kernels, self.folder / CASES: cases})
        self._drop_journals()
        return Summary.of(rows)

    def write_run(self, record: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_text(self.folder / RUN, json.dumps(record, indent=1, ensure_ascii=False) + "\n")

    def _kept_kernels(self, numbers: Mapping[str, int]) -> pa.Table:
        """The stored kernels of the cases ``numbers``, under these numbers."""
        import numpy as np
        import pyarrow as pa
        from pyarrow import compute

        stored = read_table(self.folder / KERNELS)
        if stored is None or not numbers:
            return kernel_table([])
        keys = stored["key"].combine_chunks().dictionary_encode()
        of_key = np.array([numbers.get(key, 0) for key in keys.dictionary.to_pylist()], dtype=np.int64)
        case = pa.array(of_key[keys.indices.to_numpy()])
        return stored.set_column(0, "case", case).filter(compute.greater(case, 0))

    def _new_kernels(self, numbers: Mapping[str, int], wanted: set[str]) -> Iterator[pa.Table]:
        """The journalled kernels of the cases ``wanted``, each once."""
        outcomes = _journalled(self.folder)
        while chunk := list(islice(outcomes, CHUNK)):
            parts = []
            for outcome in chunk:
                if outcome.key in wanted and not outcome.error:
                    wanted.discard(outcome.key)
                    parts.append((numbers[outcome.key], outcome))
            yield kernel_table(parts)


def finished_keys(folder: Path) -> set[str]:
    """Keys of the cases in a results folder that have figures."""
    stored = {key for key, row in _rows(folder).items() if row["status"] == OK}
    return stored | {outcome.key for outcome in _journalled(folder) if not outcome.error}


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob("journal-*.jsonl"))


def _journalled(folder: Path) -> Iterator[Outcome]:
    for path in _journals(folder):
        for record in read_journal(path):
            yield Outcome(**record)


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    """The stored rows by key, without what they lack."""
    stored = read_table(folder / CASES)
    rows = [] if stored is None else stored.to_pylist()
    return {row["key"]: {name: value for name, value in row.items() if value is not None} for row in rows}
