"""Time kernels on the device at hand into a CSV, one row per op spec: `hwsim measure`, and as a bare script.

    python kernels/measure.py --device cuda --suite all --out rows.csv --seconds 500

As a script it needs torch and the standard library only. Rows follow the kernel interchange (section 7 of
the design); times are seconds, energy is joules of one warm call. A row is written as soon as it is measured;
rows that the file already holds are skipped, so that a run cut short is resumed by the same command. The
file's `#` header says machine, versions and method: pandas.read_csv(path, comment="#").
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch

if not __package__:  # run as a script: hwsim's rooms without what the whole of hwsim needs
    bare = ModuleType("hwsim")
    bare.__path__ = [str(Path(__file__).resolve().parents[1])]
    sys.modules["hwsim"] = bare
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]

from hwsim.kernels.families import Draw, Family
from hwsim.kernels.measure_machine import Machine, prepare_torch
from hwsim.kernels.measure_rows import Case, RowFile
from hwsim.kernels.suites import kernel_families
from hwsim.kernels.suites_collective import collective_families
from hwsim.kernels.suites_model import model_family
from hwsim.kernels.suites_sequence import sequence_families
from hwsim.kernels.tuning import tune

SUITES = ("all", "sequence", "collective", "end_to_end")
TUNING_SHARE = 0.6  # of the time given, at most
OK, WRONG_INPUT, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130

Progress = Callable[[str], None]


def families_of(device: torch.device, suites: list[str]) -> dict[str, Family]:
    """The families of the named suites: `all` kernel ops, another suite, or an op; ValueError otherwise."""
    groups = {
        "all": kernel_families(device),
        "sequence": sequence_families(device),
        "collective": collective_families(device),
        "end_to_end": {"model": model_family(device)},
    }
    ops = {op: {op: family} for group in groups.values() for op, family in group.items()}
    named = groups | ops
    unknown = [name for name in suites if name not in named]
    if unknown:
        raise ValueError(f"unknown suite {', '.join(unknown)}; this device has: {', '.join(named)}")
    return {op: family for name in suites for op, family in named[name].items()}


def available(families: dict[str, Family]) -> dict[str, Family]:
    """The families that can be measured here; the others are reported on stderr."""
    for op, family in families.items():
        if family.unavailable:
            print(f"unavailable: {op}: {family.unavailable}", file=sys.stderr)
    return {op: family for op, family in families.items() if not family.unavailable}


def interleaved(families: dict[str, Family], seed: int, device: torch.device) -> Iterator[Case]:
    """Rounds over the families until all streams end.

    Each family draws from its own generator, so that its rows do not depend on which others are measured.
    """
    streams = {op: (family, family.specs(Draw(f"{seed}/{op}", device))) for op, family in families.items()}
    lots = {op: Draw(f"{seed}/{op}/energy", device) for op in families}
    while streams:
        for op, (family, specs) in list(streams.items()):
            for _ in range(family.weight):
                fields = next(specs, None)
                if fields is None:
                    streams.pop(op, None)
                    break
                yield Case(op, fields, family, lots[op].chance(family.energy_share))


def measure(
    device: str = "cuda",
    suites: list[str] | None = None,
    out: str | Path = "rows.csv",
    seconds: float = 500.0,
    seed: int = 0,
    limit: int | None = None,
    progress: Progress | None = None,
) -> int:
    """Measure rows of the suites into `out` for at most `seconds` or `limit` rows.

    Returns 0, 2 when the input is wrong, 3 when some ops failed or are unavailable, 130 when interrupted;
    `progress` gets one line per row. A failing op is reported on stderr and counted, and the run goes on.
    """
    begin = time.monotonic()
    target = torch.device(device)
    try:
        wanted = families_of(target, suites or ["all"])
        prepare_torch(target, seed)
        machine = Machine(target)
        rows = RowFile(Path(out), machine.name, machine.describe(), seed)
    except UnicodeDecodeError:
        print(f"hwsim measure: {out} is no CSV text: choose another --out", file=sys.stderr)
        return WRONG_INPUT
    except OSError as error:
        print(f"hwsim measure: {out}: {error.strerror}", file=sys.stderr)
        return WRONG_INPUT
    except (ValueError, RuntimeError) as error:
        print(f"hwsim measure: {error}", file=sys.stderr)
        return WRONG_INPUT
    families = available(wanted)
    try:
        tune(families, target, begin + TUNING_SHARE * seconds)
        failed = _measure_all(machine, rows, interleaved(families, seed, target), begin + seconds, limit, progress)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        rows.close()
    return SOME_FAILED if failed or len(families) < len(wanted) else OK


def _measure_all(
    machine: Machine,
    rows: RowFile,
    cases: Iterator[Case],
    deadline: float,
    limit: int | None,
    progress: Progress | None,
) -> int:
    failed = 0
    measured = 0
    for case in cases:
        if time.monotonic() >= deadline or measured == limit:
            break
        if case.spec in rows.done:
            continue
        rows.done.add(case.spec)
        try:
            row = machine.measure(case)
        except Exception as error:  # one op that this library or device refuses must not end the run
            failed += 1
            print(f"failed: {case.spec}: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            measured += 1
            rows.write(row)
            if progress is not None:
                progress(f"{measured} {case.spec} warm {row.warm.median * 1e6:.1f} us")
        machine.timer.release()
    print(f"{measured} rows measured, {failed} failed", file=sys.stderr)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """The command line of the bare script."""
    parser = argparse.ArgumentParser(description="Time kernels into the CSV of hwsim's kernel interchange.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--suite", default="all", help=f"{', '.join(SUITES)}, or ops; joined by commas (default: all)")
    parser.add_argument("--out", default="rows.csv", help="CSV to append to (default: rows.csv)")
    parser.add_argument("--seconds", type=float, default=500.0, help="stop after this long (default: 500)")
    parser.add_argument("--seed", type=int, default=0, help="of shapes and data (default: 0)")
    parser.add_argument("--limit", type=int, help="stop after this many rows")
    given = parser.parse_args(arguments)
    return measure(
        given.device,
        given.suite.split(","),
        given.out,
        given.seconds,
        given.seed,
        given.limit,
        progress=lambda line: print(line, file=sys.stderr),
    )


if __name__ == "__main__":
    sys.exit(main())
