"""Block traces in the CSV form of MSR Cambridge: Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime.

Timestamps and response times are in units of 100 ns, offsets and sizes in bytes (SNIA IOTTA trace 388). A first line of
names is passed over; requests that reach beyond the drive are put back into it (modulo its size), and counted.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hwsim.devices.storage.load import MOST_REQUESTS
from hwsim.devices.storage.state import SECTOR, STREAM_SIZE, TICKS, Ints
from hwsim.devices.storage.things import Op
from hwsim.errors import InputError, Problem

FIELDS = ("Timestamp", "Hostname", "DiskNumber", "Type", "Offset", "Size", "ResponseTime")
UNIT_TICKS = TICKS // 10**7
KINDS = {"read": Op.READ, "write": Op.WRITE}
LARGEST = 2**26
LONGEST = 2**62
"""Ticks from a trace's first request to its last, which is 14 years."""
MOST_PROBLEMS = 20


@dataclass(frozen=True, slots=True)
class Trace:
    """Requests with their times of arrival, and the response times that were measured (seconds)."""

    stream: Ints
    measured: np.ndarray[tuple[int], np.dtype[np.float64]]

    @property
    def reads(self) -> float:
        """The share of reads."""
        return float((self.stream[:, 0] == Op.READ).mean())


def read_trace(path: Path) -> Trace:
    """Read a trace; `InputError` names file, line and field of what is wrong."""
    rows: list[tuple[int, int, int, int, float]] = []
    problems: list[Problem] = []
    for line, fields in _lines(path):
        if line == 1 and [field.strip().lower() for field in fields] == [name.lower() for name in FIELDS]:
            continue
        try:
            rows.append(_row(fields))
        except InputError as error:
            problems += [
                Problem(p.message, str(path), line, path=p.path, got=p.got, expected=p.expected) for p in error.problems
            ]
        if len(problems) >= MOST_PROBLEMS:
            break
        if len(rows) > MOST_REQUESTS:
            problems.append(Problem(f"more than {MOST_REQUESTS} requests", str(path), line))
            break
    if problems:
        raise InputError(*problems)
    if not rows:
        raise InputError(Problem("no requests", str(path), expected=",".join(FIELDS)))
    table = np.array([row[:4] for row in rows], np.int64)
    order = np.argsort(table[:, 0], kind="stable")
    stream = np.zeros((len(rows), STREAM_SIZE), np.int64)
    stream[:, 0], stream[:, 1], stream[:, 2] = table[order, 1], table[order, 2], table[order, 3]
    times = table[order, 0] - table[order[0], 0]
    if times[-1] > LONGEST // UNIT_TICKS:
        expected = f"at most {LONGEST / TICKS:.2g} s from the first to the last"
        raise InputError(Problem(file=str(path), path=FIELDS[0], got=f"{times[-1] * 1e-7:.3g} s", expected=expected))
    stream[:, 3] = times * UNIT_TICKS
    return Trace(stream, np.array([rows[index][4] for index in order]))


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers, from 1, with fields; empty lines are passed over."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for number, fields in enumerate(csv.reader(stream), start=1):
                if fields:
                    yield number, fields
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(Problem(f"not a CSV text: {error}", str(path))) from None


def _row(fields: list[str]) -> tuple[int, int, int, int, float]:
    """Timestamp, op, offset, size and response time in seconds of one line."""
    if len(fields) != len(FIELDS):
        raise InputError(Problem(got=f"{len(fields)} fields", expected=f"{len(FIELDS)}: {','.join(FIELDS)}"))
    kind = KINDS.get(fields[3].strip().lower())
    if kind is None:
        raise InputError(Problem(path="Type", got=f"'{fields[3]}'", expected="Read or Write"))
    timestamp, response = _number(fields, 0, 0, 2**62), _number(fields, 6, 0, 2**62)
    offset, size = _number(fields, 4, 0, 2**62), _number(fields, 5, 1, LARGEST)
    # A drive has whole sectors.
    first = offset // SECTOR * SECTOR
    return timestamp, int(kind), first, -(-(offset + size - first) // SECTOR) * SECTOR, response * 1e-7


def _number(fields: list[str], column: int, least: int, most: int) -> int:
    text = fields[column].strip()
    value = int(text) if text.isdecimal() else -1
    if not least <= value <= most:
        problem = Problem(path=FIELDS[column], got=f"'{text}'", expected=f"a whole number from {least} to {most}")
        raise InputError(problem)
    return value
