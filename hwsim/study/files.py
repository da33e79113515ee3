"""Files of a results folder: failures to write them, journals, and the lock that keeps a second run out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import IO, Any

from hwsim.errors import InputError, Problem

SYNC_S = 1.0  # a journal reaches the disk at least this often


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a failure to write ``path`` (no permission, disk full) into one clear `InputError`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(Problem(f"cannot be written: {reason}", str(path))) from None


class Journal:
    """A file of JSON lines that finished cases are appended to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[str] | None = None
        self._synced = monotonic()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a line; it outlives the process from now on, and the machine after `SYNC_S`."""
        line = json.dumps(record, separators=(",", ":")) + "\n"
        with writing(self._path):
            if self._file is None:
                self._file = self._path.open("a", encoding="utf-8")
                self._file.write("\n")  # ends a line that a killed process of the same id left half written
            self._file.write(line)
            self._file.flush()
            if monotonic() - self._synced > SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = monotonic()

    def close(self) -> None:
        """Close the file if anything was written."""
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a journal; a line that a killed process left half written is passed over."""
    with path.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                yield record


def lock(path: Path) -> IO[str]:
    """Hold ``path`` for this process until it is closed or the process ends; a second holder is an `InputError`."""
    with writing(path):
        file = path.open("w")
    try:
        import fcntl
    except ImportError:  # Windows: two runs in one folder are not noticed
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise InputError(Problem("another run is writing into this folder", str(path.parent))) from None
    return file


def write_text(path: Path, text: str) -> None:
    """Store a text whole or not at all."""
    with writing(path):
        partial = path.with_suffix(".partial")
        partial.write_text(text, "utf-8")
        partial.replace(path)
