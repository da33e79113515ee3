"""Time kernels on the device at hand into a CSV, one row per op spec: `hwsim measure`, and as a bare script.

    python kernels/measure.py --device cuda --suite all --out rows.csv --seconds 500

As a script it needs torch and the standard library only. Rows follow the kernel interchange (section 7 of
the design); times are seconds, energy is joules of one warm call. A row is written as soon as it is measured;
rows that the file already holds are skipped, so that a run cut short is resumed by the same command. The
file's `#` header says machine, versions and method: pandas.read_csv(path, comment="#").
"""

import argparse
import csv
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import torch

if TYPE_CHECKING or __package__:
    from hwsim.kernels.decoder import build_model, model_specs
    from hwsim.kernels.energy import GpuMonitor, NvmlError
    from hwsim.kernels.suites import Draw, Family, Fields, kernel_families
    from hwsim.kernels.timers import CudaTimer, HostTimer, Spread, Timer
else:  # run as a script on a host without hwsim: Python has put this file's folder on the path
    from decoder import build_model, model_specs
    from energy import GpuMonitor, NvmlError
    from suites import Draw, Family, Fields, kernel_families
    from timers import CudaTimer, HostTimer, Spread, Timer

COLUMNS = (
    "op",
    "spec",
    "seconds_cold",
    "cold_p10",
    "cold_p90",
    "seconds_warm",
    "warm_p10",
    "warm_p90",
    "joules_warm",
    "repeats",
)
END_TO_END = "end_to_end"
IDLE_S = 1.0
OK, WRONG_INPUT, SOME_FAILED, INTERRUPTED = 0, 2, 3, 130

SETTINGS = """\
matmul: x @ w.T with w stored as n rows of k; fp32 without TF32; int8 is torch._int_mm into int32; \
fp8 (e4m3) is torch._scaled_mm with fast accumulation into bf16
attention: scaled_dot_product_attention, torch's own choice of backend, enable_gqa for grouped heads
conv2d: cuDNN without autotuning, no TF32; gather_rows: index_select of 4-byte words by int64 ids
model: one prefill (logits of the last position) or one decode step after `prompt` tokens; bf16
operands: random normal, uniform for int8 and copies; outputs allocated by torch's caching allocator"""
CUDA_METHOD = """\
cold: a buffer of six times the L2 is written, then one launch is timed event to event; median of `repeats`
warm: 20 calls in a CUDA graph (1 for op model; mode eager: launched by the host), replayed back to back, \
event-timed in regions of at least 0.5 ms, per call; median of `repeats` regions
joules_warm: mean power (NVML energy counter, refresh to refresh, >= 0.6 s of runs) times seconds per call of \
those runs, which a card at its power limit stretches beyond the shorter warm regions"""
HOST_METHOD = """\
cold: a buffer of four times the last-level cache is rewritten, then one call is timed; median of `repeats`
warm: up to 20 repeated calls per timed region, per call; median of `repeats` regions
joules_warm: not measured"""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One op spec to measure, how its family is run, and whether its energy is measured."""

    op: str
    fields: Fields
    family: Family
    with_energy: bool

    @property
    def spec(self) -> str:
        """The interchange object as compact JSON with sorted keys: the identity of a row."""
        return json.dumps({"op": self.op, **self.fields}, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Row:
    """One measured case: seconds cold and warm with their spread, joules of a warm call."""

    case: Case
    cold: Spread | None
    warm: Spread
    joules: float | None
    repeats: int

    def cells(self) -> list[str]:
        """The row's CSV cells in the order of COLUMNS; empty where nothing was measured."""
        times = [
            f"{seconds:.6g}" if seconds is not None else ""
            for spread in (self.cold, self.warm)
            for seconds in ((spread.median, spread.p10, spread.p90) if spread else (None, None, None))
        ]
        joules = "" if self.joules is None else f"{self.joules:.6g}"
        return [self.case.op, self.case.spec, *times, joules, str(self.repeats)]


class Machine:
    """The device under measurement: its timer, and its energy counter where it has one."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.timer: Timer
        self.monitor: GpuMonitor | None = None
        if device.type == "cuda":
            self.name = torch.cuda.get_device_name(device)
            self.timer = CudaTimer(device)
            try:
                self.monitor = GpuMonitor(str(torch.cuda.get_device_properties(device).uuid))
            except NvmlError as error:
                print(f"no energy readings: {error}", file=sys.stderr)
        else:
            self.name = f"{_cpu_name()}, {torch.get_num_threads()} threads"
            self.timer = HostTimer()

    def measure(self, case: Case) -> Row:
        """Time one case; raises whatever the op raises."""
        family = case.family
        call = family.build(self.device, **case.fields)
        loop = self.timer.loop(call, family.per_graph, eager=case.fields.get("mode") == "eager")
        repeats = loop.repeats(self.timer.budget_s, family.repeats)
        cold = Spread.of(self.timer.cold(call, repeats)) if family.cold else None
        warm = Spread.of(self.timer.warm(loop, repeats))
        joules = None
        if case.with_energy and self.monitor is not None and isinstance(self.timer, CudaTimer):
            joules = self.timer.joules(loop, self.monitor.joules)
        return Row(case, cold, warm, joules, repeats)

    def describe(self) -> Iterator[str]:
        """Header lines: device, versions, state of the card, method."""
        yield f"device: {self.name}"
        yield f"host: {platform.system()} {platform.machine()}, {_cpu_name()}, {os.cpu_count()} cores"
        yield f"versions: python {platform.python_version()}, torch {torch.__version__}, {_gpu_versions()}"
        if self.monitor is not None:
            before = self.monitor.joules()
            time.sleep(IDLE_S)
            idle_w = (self.monitor.joules() - before) / IDLE_S
            state = self.monitor.state()
            yield f"driver: {state.driver}"
            yield f"state at start: {state}; idle with a context {idle_w:.1f} W"
        yield from (CUDA_METHOD if self.device.type == "cuda" else HOST_METHOD).splitlines()
        yield from SETTINGS.splitlines()


class RowFile:
    """The CSV that a run appends to, one flushed line per row."""

    def __init__(self, path: Path, machine: Machine, seed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = _whole_lines(path)
        recorded = next((line for line in lines if line.startswith("# device: ")), None)
        if recorded not in (None, f"# device: {machine.name}"):
            raise ValueError(f"{path} is of '{recorded}', this is '{machine.name}': choose another --out")
        table = [line for line in lines if not line.startswith("#")]
        self.done = {row["spec"] for row in csv.DictReader(table)}
        self._file: TextIO = path.open("a", newline="")
        self._file.write(f"# date: {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}, seed {seed}\n")
        self._file.writelines(f"# {line}\n" for line in machine.describe())
        self._writer = csv.writer(self._file, lineterminator="\n")
        if not table:
            self._writer.writerow(COLUMNS)

    def write(self, row: Row) -> None:
        """Append a row and flush it."""
        self._writer.writerow(row.cells())
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    """The lines of a file; a last line that was cut off while being written is removed from it."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        path.write_bytes(whole)
    return whole.decode().splitlines()


def families_of(device: torch.device, suites: list[str]) -> dict[str, Family]:
    """The families of the named suites: an op, `all` kernel ops, or `end_to_end`; ValueError otherwise."""
    kernels = kernel_families(device)
    model = Family(
        lambda draw: model_specs(draw.device),
        build_model,
        per_graph=1,
        cold=False,
        energy_share=1.0,
        repeats=30 if device.type == "cuda" else 7,
    )
    named = {"all": kernels, END_TO_END: {"model": model}, **{op: {op: kernels[op]} for op in kernels}}
    unknown = [name for name in suites if name not in named]
    if unknown:
        raise ValueError(f"unknown suite {', '.join(unknown)}; this device has: {', '.join(named)}")
    return {op: family for name in suites for op, family in named[name].items()}


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

    Returns 0, 2 when the input is wrong, 3 when some ops failed, 130 when interrupted; `progress` gets one
    line per row. A failing op is reported on stderr and counted, and the run goes on.
    """
    deadline = time.monotonic() + seconds
    target = torch.device(device)
    try:
        families = families_of(target, suites or ["all"])
        _prepare_torch(target, seed)
        machine = Machine(target)
        rows = RowFile(Path(out), machine, seed)
    except (ValueError, RuntimeError) as error:
        print(f"hwsim measure: {error}", file=sys.stderr)
        return WRONG_INPUT
    try:
        failed = _measure_all(machine, rows, interleaved(families, seed, target), deadline, limit, progress)
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        rows.close()
    return SOME_FAILED if failed else OK


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
            with torch.inference_mode():
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


def _prepare_torch(device: torch.device, seed: int) -> None:
    torch.manual_seed(seed)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device; --device cpu measures this host")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "CPU")


def _gpu_versions() -> str:
    try:
        import triton
    except ImportError:
        triton_version = "absent"
    else:
        triton_version = triton.__version__
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"cuda {torch.version.cuda}, cudnn {cudnn}, triton {triton_version}"


def main(arguments: list[str] | None = None) -> int:
    """The command line of the bare script."""
    parser = argparse.ArgumentParser(description="Time kernels into the CSV of hwsim's kernel interchange.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--suite", default="all", help="all, end_to_end, or ops joined by commas (default: all)")
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
