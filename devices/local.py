"""The card `cpu-local`: this machine, measured on first use and remembered in the user's cache directory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from hwsim.devices import probe

FILE = "cpu-local.yaml"
WATTS_PER_CORE = 5.0  # of server cores under load, of which a fifth at rest


def card_text() -> str:
    """The card of this machine as YAML; measures for some seconds where there is none yet."""
    file = cache_folder() / FILE
    if not file.exists():
        text = measured_card()
        file.parent.mkdir(parents=True, exist_ok=True)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_text(text)
        fresh.replace(file)  # at once, so that no other process reads half a card
    return file.read_text()


def cache_folder() -> Path:
    """$XDG_CACHE_HOME/hwsim, or ~/.cache/hwsim."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "hwsim"


def measured_card() -> str:
    """Measure this machine and write its card."""
    count = probe.cores()
    watts = WATTS_PER_CORE * count
    sections = [
        *_head(count),
        *_compute(count),
        "memories:",
        *_memories(),
        "power:",
        f"  idle: {_figure(watts / 5, 'W', 'assumed', 'a fifth of the limit')}",
        f"  limit: {_figure(watts, 'W', 'assumed', f'{WATTS_PER_CORE:g} W a core; not measured')}",
        "parameters:",
        *_parameters(),
    ]
    return "\n".join(sections) + "\n"


def _figure(value: float, unit: str, mark: str = "measured", note: str = "") -> str:
    end = f', note: "{note}"' if note else ""
    return f"{{value: {value:.4g}{' ' * bool(unit)}{unit}, mark: {mark}, source: here{end}}}"


def _head(count: int) -> Iterator[str]:
    model = _model().replace('"', "'")
    yield "card: cpu-local"
    yield f'title: "{model}, {count} cores, {platform.system()} {platform.machine()}"'
    yield "family: cpu"
    yield "sources:"
    yield f'  here: {{title: "hwsim.devices.probe on this machine ({platform.node()})", date: "{date.today()}"}}'


def _model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "") or "CPU"


def _compute(count: int) -> Iterator[str]:
    fp32, fp64 = probe.matmul_rate("float32"), probe.matmul_rate("float64")
    rates = {"fp32": (fp32, "measured", ""), "fp64": (fp64, "measured", "")}
    rates |= dict.fromkeys(("bf16", "fp16"), (fp32 / 2, "assumed", "half of fp32 for the conversions"))
    yield "compute:"
    yield f"  units: {_figure(count, '', note='cores of this process')}"
    for unit in ("matmul", "vector"):
        yield f"  {unit}:"
        for name, (rate, mark, note) in rates.items():
            shown = note if unit == "matmul" else "as matmul: the same units"
            yield f"    {name}: {_figure(rate, 'FLOP/s', mark if unit == 'matmul' else 'derived', shown)}"
    yield f"  special: {_figure(probe.special_rate(), 'OP/s', note='exponentials')}"


def _memories() -> Iterator[str]:
    """Nearest first; a level is at least as fast as the one behind it, whatever the calls cost that measure it."""
    floor = probe.stream(probe.TOO_LARGE // probe.cores())
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
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


def _parameters() -> Iterator[str]:
    in_flight = probe.one_core_bandwidth() * probe.latency(probe.TOO_LARGE)
    yield f"  simd_width: {_figure(32, 'B', 'assumed', 'AVX2; NEON has 16, AVX-512 64')}"
    yield f"  thread_start: {_figure(probe.thread_start(), 's', note='a task to every thread of a pool and back')}"
    yield f"  op_overhead: {_figure(probe.op_overhead(), 's', note='a numpy call on one element')}"
    note = "bandwidth of one core times latency"
    yield f"  max_bytes_in_flight_per_unit: {_figure(in_flight, 'B', 'derived', note)}"
