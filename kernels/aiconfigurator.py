"""Kernel timings of NVIDIA's AIConfigurator (PyPI `aiconfigurator-core`, Apache-2.0), read where they are installed.

The package holds Parquet tables by system (`h200_sxm`), family (`gemm`), framework (`vllm`) and version. `read_tables`
makes measurements of those that the kernel interchange can express; nothing is copied into this repository:

    rows = read_tables("h200_sxm", ops=["matmul"]).rows
    tenth, rest = split_rows(rows)

Kernels are timed by CUDA events around replays of a CUDA graph (ai-dynamo/aiconfigurator, collector/helper.py) after
3 warm replays, so all are `seconds_warm`: `hwsim.kernels.aiconfigurator_tables` says what each table covers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from hwsim.errors import InputError, Problem, UnknownNameError, lookup
from hwsim.kernels.aiconfigurator_tables import TABLES, Origin, Table, table_rows
from hwsim.measurements import Measurement, Measurements

PACKAGE = "aiconfigurator_core"
INSTALL = "pip install 'hwsim[aic]'"
FRAMEWORKS = ("vllm", "sglang", "trtllm")
"""In order of preference, where none is asked for: vLLM's GEMM is torch.nn.functional.linear."""
NCCL = "nccl"
OTHER = ("b60",)
"""Systems of Intel, whose collectors time without CUDA graphs."""


def read_source(name: str) -> Measurements:
    """The source behind ``aic:``, such as ``h200_sxm``, ``h200_sxm/trtllm`` or ``h200_sxm/vllm/0.24.0``."""
    system, _, framework = name.partition("/")
    return read_tables(system, framework or None)


def read_tables(
    system: str,
    framework: str | None = None,
    ops: Iterable[str] | None = None,
    folder: str | Path | None = None,
) -> Measurements:
    """The measurements of ``system`` that the interchange can express, all or those of ``ops``.

    ``framework`` is one of `FRAMEWORKS`, or with a version ``vllm/0.24.0``; without one, each table comes from the
    first framework that has it, newest version. ``folder`` is the package or a part of it that holds ``data``.
    Raises `InputError` where the package, the system, the framework, an op or a column is missing.
    """
    data = _data_folder(folder)
    home = lookup("system", system, {path.name: path for path in _systems(data)})
    wanted = _wanted(ops)
    rows: list[Measurement] = []
    header = [f"source: {PACKAGE}, system {system}; CUDA events around replays of a CUDA graph unless told otherwise"]
    for table, file, origin in _found(home, framework, wanted):
        read = [row for row in table_rows(table, file, origin) if row.op in wanted]
        header.append(_headline(table, origin, read))
        rows += read
    if not rows:
        where = f"{system}/{framework}" if framework else system
        raise InputError(Problem(f"no table of {where} holds {', '.join(sorted(wanted))}", str(home)))
    name = "/".join(part for part in (system, framework) if part)
    return Measurements(f"aic:{name}", tuple(header), tuple(rows))


def table_systems(folder: str | Path | None = None) -> tuple[str, ...]:
    """The systems that the package has tables of."""
    return tuple(sorted(path.name for path in _systems(_data_folder(folder))))


def _data_folder(folder: str | Path | None) -> Path:
    """The folder of systems: in ``folder``, else in the installed package, which is not imported."""
    roots = [Path(folder)] if folder is not None else _installed()
    for root in roots:
        for data in (root / "systems" / "data", root / "data", root):
            if data.is_dir() and any(data.glob("*/*/*/*/*.parquet")):
                return data
    if folder is not None:
        raise InputError(Problem("holds no tables", str(folder), expected=f"the folder of {PACKAGE} or its systems"))
    raise InputError(Problem(f"{PACKAGE} is not installed", expected=INSTALL))


def _installed() -> list[Path]:
    spec = find_spec(PACKAGE)
    return [Path(place) for place in spec.submodule_search_locations or ()] if spec else []


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _systems(data: Path) -> list[Path]:
    return [path for path in _folders(data) if path.name not in OTHER and any(path.glob("*/*/*/*.parquet"))]


def _wanted(ops: Iterable[str] | None) -> frozenset[str]:
    known = {op for table in TABLES for op in table.ops}
    wanted = known if ops is None else set(ops)
    for op in sorted(wanted - known):
        raise UnknownNameError("op of the tables", op, known)
    return frozenset(wanted)


def _found(home: Path, framework: str | None, wanted: frozenset[str]) -> Iterator[tuple[Table, Path, Origin]]:
    """The tables with wanted ops that exist, each with its file and where that comes from."""
    names, version = _asked(home, framework)
    for table in TABLES:
        if wanted.isdisjoint(table.ops):
            continue
        for name in (NCCL,) if table.family == "comm" else names:
            versions = {path.name: path for path in _folders(home / table.family / name)}
            chosen = _chosen(versions, table, None if name == NCCL else version)
            if chosen:
                yield table, versions[chosen] / f"{table.name}.parquet", Origin(home.name, name, chosen)
                break


def _asked(home: Path, framework: str | None) -> tuple[Sequence[str], str | None]:
    """The frameworks to look under, and the version asked for."""
    if framework is None:
        return FRAMEWORKS, None
    name, _, version = framework.partition("/")
    measured: Mapping[str, Sequence[Path]] = {
        known: [path for family in _folders(home) for path in _folders(family / known)] for known in FRAMEWORKS
    }
    paths = lookup("framework", name, {known: paths for known, paths in measured.items() if paths})
    if version:
        lookup(f"version of {name}", version, {path.name: path for path in paths})
    return (name,), version or None


def _chosen(versions: Mapping[str, Path], table: Table, version: str | None) -> str | None:
    """The version asked for, else the newest that has the table."""
    have = [name for name, path in versions.items() if (path / f"{table.name}.parquet").is_file()]
    if version is not None:
        return version if version in have else None
    return max(have, key=lambda name: [int(number) for number in re.findall(r"\d+", name)], default=None)


def _headline(table: Table, origin: Origin, rows: Sequence[Measurement]) -> str:
    kernels = sorted({row.kernel for row in rows})
    return (
        f"{table.name}: {origin.framework} {origin.version}, {len(rows)} rows, kernels {', '.join(kernels)}; "
        f"{table.method}"
    )
