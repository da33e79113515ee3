"""The card `cpu-local`: this machine, measured on first use and remembered in the user's cache directory."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import date
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from hwsim.calibrating import Share, calibrate
from hwsim.calibration import write_calibration
from hwsim.card import read_card
from hwsim.device import Outline
from hwsim.devices import probe
from hwsim.devices.cpu import Cpu
from hwsim.devices.cpu.bench import measure_kernels
from hwsim.devices.cpu.constants import CONSTANTS, TYPICAL
from hwsim.errors import InputError
from hwsim.measurements import Measurements
from hwsim.progress import Progress

FILE, CALIBRATION_FILE = "cpu-local.yaml", "cpu-local-calibration.yaml"
WATTS_PER_CORE = 5.0  # of server cores under load, of which a fifth at rest
RUNTIME_NODE_S = 2e-6
PROBES_S, KERNELS_S, FIT_S = 15.0, 25.0, 5.0  # about: of the card's figures, torch's kernels, their constants
WHOLE_S = PROBES_S + KERNELS_S + FIT_S

Tell = Callable[[float, str], None]
"""Takes the part of something that is done, from 0 to 1, and what is being done."""


def card_text() -> str:
    """The card of this machine as YAML; measures for most of a minute where there is none yet."""
    file = cache_folder() / FILE
    if not file.exists():
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            _measure(file)
        except OSError as error:
            hint = "XDG_CACHE_HOME names another folder"
            raise InputError(f"{file.parent}: cpu-local cannot be kept there: {error.strerror}; {hint}") from None
    return file.read_text()


def outline() -> Outline | None:
    """What is known of this machine before it is measured; None once it is."""
    if (cache_folder() / FILE).exists():
        return None
    return Outline(_title(probe.cores()), "cpu", WHOLE_S)


def _measure(file: Path) -> None:
    """Measure this machine into ``file`` and the calibration beside it."""
    _say(f"cpu-local: measuring this machine, once, for about {WHOLE_S:.0f} s")
    busy = busy_elsewhere()
    if busy:
        _say("cpu-local: other work keeps it busy: figures are of one core, and rough; measure again when it is idle")
    with tempfile.TemporaryDirectory(dir=file.parent) as folder, Progress("cpu-local:") as progress:
        text = measured_card(busy, lambda part, doing: progress.done(part * PROBES_S / WHOLE_S, doing))
        fresh = Path(folder) / CALIBRATION_FILE
        _calibrate(text, busy, fresh, lambda part, doing: progress.done((PROBES_S + part * KERNELS_S) / WHOLE_S, doing))
        if fresh.exists():
            fresh.replace(file.with_name(CALIBRATION_FILE))
        (Path(folder) / FILE).write_text(text)
        (Path(folder) / FILE).replace(file)
    _say(f"cpu-local: kept in {file.parent}")


def calibration_file() -> Path | None:
    """The constants fitted to torch's kernels on this machine; None where they were not measured."""
    card_text()
    file = cache_folder() / CALIBRATION_FILE
    return file if file.exists() else None


def busy_elsewhere() -> bool:
    """Whether other work has lately kept some core busy."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > 0.5


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _calibrate(text: str, busy: bool, path: Path, tell: Tell) -> None:
    """Write the calibration that suits torch's kernels here to ``path``; none where torch is not installed."""
    lacking = [name for name in ("torch", "scipy") if find_spec(name) is None]
    if lacking:
        _say(f"cpu-local: without {' and '.join(lacking)} the constants of kernels stay typical ones")
        return
    card = read_card(text, lambda family: Cpu.parameters)
    caches = [memory.capacity for memory in card.memories if memory.kind == "cache"]
    last = max(caches, default=float(1 << 25))
    rows = measure_kernels(KERNELS_S, last, alone=busy, progress=lambda part: tell(part, "torch's kernels"))
    header = (f"device: {card.title}", f"versions: torch {version('torch')}", f"date: {date.today()}")
    measured = Measurements("cpu-local", header, rows)
    device = Cpu(card).on_one_core() if busy else Cpu(card)
    # What is remarkable of a constant is written beside it.
    found = calibrate(device, [Share(measured, 1)], progress=lambda line: tell(1.0, "fitting constants"))
    write_calibration(found, path)


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/hwsim, or ~/.cache/hwsim."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "hwsim"


def measured_card(busy: bool, tell: Tell) -> str:
    """Measure this machine and write its card; where it is ``busy`` with other work, one core stands for all."""
    count = probe.cores()
    sections: dict[str, Callable[[], Iterator[str]]] = {
        "cores": lambda: _head(count),
        "arithmetic": lambda: _compute(count, busy),
        "memories": _memories,
        "power": lambda: _power(count),
        "calls": _parameters,
    }
    lines: list[str] = []
    for index, (what, section) in enumerate(sections.items()):
        tell(index / len(sections), what)
        lines += section()
    return "\n".join(lines) + "\n"


def _figure(value: float, unit: str, mark: str = "measured", note: str = "") -> str:
    end = f', note: "{note}"' if note else ""
    return f"{{value: {value:.4g}{' ' * bool(unit)}{unit}, mark: {mark}, source: here{end}}}"


def _head(count: int) -> Iterator[str]:
    yield "card: cpu-local"
    yield f'title: "{_title(count)}"'
    yield "family: cpu"
    yield "sources:"
    yield f'  here: {{title: "hwsim.devices.probe on this machine ({platform.node()})", date: "{date.today()}"}}'


def _title(count: int) -> str:
    model = _model().replace('"', "'")
    return f"{model}, {count} cores, {platform.system()} {platform.machine()}"


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "") or "CPU"


def _compute(count: int, busy: bool) -> Iterator[str]:
    fp32, fp64 = probe.matmul_rate("float32", busy), probe.matmul_rate("float64", busy)
    rates = {"fp32": (fp32, "measured", ""), "fp64": (fp64, "measured", "")}
    rates |= dict.fromkeys(("bf16", "fp16"), (fp32, "assumed", "as fp32, after conversion"))
    rates |= {"int8": (fp32, "assumed", "as fp32")}
    yield "compute:"
    yield f"  units: {_figure(count, '', note='cores of this process')}"
    for unit in ("matmul", "vector"):
        yield f"  {unit}:"
        for name, (rate, mark, note) in rates.items():
            shown = note if unit == "matmul" else "as matmul: the same units"
            if unit == "matmul" or name != "int8":
                yield f"    {name}: {_figure(rate, 'FLOP/s', mark if unit == 'matmul' else 'derived', shown)}"
    yield f"  special: {_figure(probe.special_rate(), 'OP/s', note='exponentials')}"


def _memories() -> Iterator[str]:
    """Nearest first; a level is at least as fast as the one behind it, whatever the calls cost that measure it."""
    floor = probe.stream(probe.TOO_LARGE // probe.cores())
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "memories:"
    levels = [_memory("ddr", "main", pages, floor, probe.latency(probe.TOO_LARGE))]
    for cache in reversed(probe.cache_levels()):
        # Half of a core's part, so that neither the other cores nor the code push the operands out.
        share = cache.nbytes * cache.instances // probe.cores() // 2
        moved = probe.stream(share)
        floor = probe.Stream(max(floor.read, moved.read), max(floor.write, moved.write))
        level = _memory(f"l{cache.level}", "cache", cache.nbytes * cache.instances, floor, probe.latency(share))
        levels.insert(0, level)
    for level in levels:
        yield from level


def _memory(name: str, kind: str, nbytes: float, moved: probe.Stream, latency: float) -> list[str]:
    return [
        f"  - name: {name}",
        f"    kind: {kind}",
        f"    capacity: {_figure(nbytes, 'B')}",
        f"    bandwidth: {_figure(moved.read, 'B/s', note='all cores reading')}",
        f"    write_bandwidth: {_figure(moved.write, 'B/s', note='all cores writing')}",
        f"    latency: {_figure(latency, 's', note='pointer chase')}",
        f"    granularity: {_figure(64, 'B', 'assumed', 'one line')}",
    ]


def _power(count: int) -> Iterator[str]:
    watts = WATTS_PER_CORE * count
    yield "power:"
    yield f"  idle: {_figure(watts / 5, 'W', 'assumed', 'a fifth of the limit')}"
    yield f"  limit: {_figure(watts, 'W', 'assumed', f'{WATTS_PER_CORE:g} W a core; not measured')}"


def _parameters() -> Iterator[str]:
    yield "parameters:"
    in_flight = probe.one_core_bandwidth() * probe.latency(probe.TOO_LARGE)
    yield f"  simd_width: {_figure(32, 'B', 'assumed', 'AVX2; NEON has 16, AVX-512 64')}"
    note = "bandwidth of one core times latency"
    yield f"  max_bytes_in_flight_per_unit: {_figure(in_flight, 'B', 'derived', note)}"
    yield f"  module_overhead: {_figure(probe.module_overhead(), 's', note='a layer of torch around its op')}"
    yield f"  runtime_overhead: {_figure(RUNTIME_NODE_S, 's', 'assumed', 'a node of ONNX Runtime')}"
    for name, value in TYPICAL.items():
        unit = CONSTANTS[name].unit
        yield f"  {name}: {_figure(value, '' if unit == '1' else unit, 'assumed', 'typical of a server core')}"
