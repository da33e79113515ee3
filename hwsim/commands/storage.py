"""`hwsim storage`: what a drive gives for a load, in fio's words, and which drives there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast

import typer

from hwsim.commands import options
from hwsim.commands.groups import grouped
from hwsim.commands.listing import Parts, print_part, print_rows
from hwsim.commands.output import print_json, say
from hwsim.errors import InputError
from hwsim.units import format_quantity, format_seconds, parse

app = typer.Typer(help="Drives: rates, latencies, wear and energy of flash under a load.")
UNITS = ((1e9, "sec"), (1e6, "msec"), (1e3, "usec"), (0.0, "nsec"))
"""From how many nanoseconds on fio writes which unit; it keeps the smaller one up to ten thousand."""


def _seconds(text: str | float) -> float:
    """A time: 10 (seconds), 10s, 200ms."""
    plain = str(text).strip()
    value = float(plain) if plain.replace(".", "", 1).isdigit() else _quantity(plain, "s")
    if not 0 < value < 1e5:
        raise typer.BadParameter(f"not a run time: got '{text}', expected above 0 and below 100,000 s")
    return value


def _quantity(text: str, unit: str) -> float:
    try:
        return parse(text, unit)
    except InputError as error:
        raise typer.BadParameter(str(error)) from None


@dataclass(frozen=True, slots=True)
class Load:
    """Which requests come, in fio's words."""

    rw: Annotated[
        Literal["read", "write", "randread", "randwrite", "rw", "readwrite", "randrw", "trim", "randtrim"],
        typer.Option(help="What is asked for, in order or at random."),
    ] = "randread"
    rwmixread: Annotated[int, typer.Option(min=0, max=100, help="Percent of reads of rw and randrw.")] = 50
    bs: Annotated[int, typer.Option(parser=options.nbytes, metavar="BYTES", help="Of a request: 4k, 128k.")] = 4096
    iodepth: Annotated[int, typer.Option(help="Requests of a job in flight.")] = 1
    numjobs: Annotated[int, typer.Option(help="Jobs that run at the same time.")] = 1
    size: Annotated[
        int | None,
        typer.Option(parser=options.nbytes, metavar="BYTES", help="Used of the drive.", show_default="all"),
    ] = None
    number_ios: Annotated[
        int | None, typer.Option("--number_ios", help="Requests.", show_default="100000, fewer large ones")
    ] = None
    runtime: Annotated[
        float | None, typer.Option(parser=_seconds, metavar="TIME", help="Simulated, instead of a number of requests.")
    ] = None
    precondition: Annotated[
        Literal["none", "layout", "fill", "steady"] | None,
        typer.Option(help="What was written before.", show_default="layout for reads, else none"),
    ] = None
    seed: Annotated[int, typer.Option(min=0, help="Of addresses and chances.")] = 1


@app.command()
@grouped
def bench(
    card: Annotated[str, typer.Argument(metavar="CARD", help="A drive card's name, or a path to one.")],
    load: Load,
    write_cache: Annotated[bool, typer.Option("--write-cache/--no-write-cache", help="The drive's own.")] = True,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change the card: nand.channels=16.")
    ] = None,
    replay: Annotated[
        Path | None, typer.Option(metavar="TRACE.csv", help="Requests of a trace (MSR Cambridge) at their times.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Rates, latencies, wear and energy of a drive under a load, simulated page by page and by formulas."""
    if load.number_ios is not None and load.runtime is not None:
        raise typer.BadParameter("give --number_ios or --runtime, not both")
    found = harness().bench(card, asdict(load), settings, write_cache, replay, lambda text: say(f"hwsim: {text}"))
    if json:
        print_json(found)
    else:
        _print(found)


@app.command("list")
def list_cards(json: options.Json = False) -> None:
    """The drives that ship."""
    print_rows(harness().cards(), json)


@app.command()
def show(
    card: Annotated[str, typer.Argument(metavar="CARD", help="A drive card's name, or a path to one.")],
    json: options.Json = False,
) -> None:
    """A drive's card with the mark and source of every figure."""
    print_part(harness().show(card), json)


class Harness(Parts, Protocol):
    """What the room of devices does for these commands."""

    def bench(
        self,
        card: str,
        question: Mapping[str, Any],
        settings: list[str] | None,
        write_cache: bool,
        replay: Path | None,
        tell: Callable[[str], None],
    ) -> dict[str, Any]: ...

    def names(self) -> Sequence[str]: ...


def harness() -> Harness:
    """The room's side of these commands."""
    from hwsim.registry import load_plugin

    return cast("Harness", load_plugin("hwsim.harnesses", "storage"))


def _print(found: Mapping[str, Any]) -> None:
    """The answer as fio prints it, then what only a simulation knows."""
    depth = f"iodepth={found['iodepth']}, numjobs={found['numjobs']}"
    size = f"bs={found['bs']}B, " if found["bs"] else ""
    print(f"{found['drive']}: rw={found['rw']}, {size}{depth}, {found['number_ios']} requests")
    job = found["jobs"][0]
    for name in ("read", "write", "trim"):
        if job[name]["total_ios"]:
            _print_side(name, job[name])
    for line in _facts(found):
        print(f"  {line}")


def _print_side(name: str, side: Mapping[str, Any]) -> None:
    rate, nbytes = side["bw_bytes"], side["io_bytes"]
    moved = f"{nbytes / 2**20:.0f}MiB/{format_seconds(side['runtime_s'])}"
    print(f"  {name}: IOPS={_short(side['iops'])}, BW={_rate(rate)}({moved})")
    for kind in ("slat", "clat", "lat"):
        times = side[f"{kind}_ns"]
        scale, unit = _unit(times["max"], times["mean"])
        body = ", ".join(
            f"{word}={times[key] / scale:.{digits}f}"
            for word, key, digits in (("min", "min", 0), ("max", "max", 0), ("avg", "mean", 2), ("stdev", "stddev", 2))
        )
        print(f"    {kind:>4} ({unit}): {body}")
    percentiles = side["clat_ns"]["percentile"].values()
    scale, unit = _unit(max(percentiles), min(percentiles))
    print(f"    clat percentiles ({unit}):")
    cells = [f"{float(key):5.2f}th=[{value / scale:5.0f}]" for key, value in side["clat_ns"]["percentile"].items()]
    for start in range(0, len(cells), 4):
        print(f"     | {', '.join(cells[start : start + 4])}{',' if start + 4 < len(cells) else ''}")


def _facts(found: Mapping[str, Any]) -> list[str]:
    """Lines about flash, wear, energy, who was busy, and the formulas' answer."""
    flash, energy, busy, formulas = (found[name] for name in ("flash", "energy", "utilisation", "analytic"))
    lines = [
        f"flash: {flash['pages_read']} pages read, {flash['rows_programmed']} programs, {flash['blocks_erased']} erases"
    ]
    if flash["write_amplification"] is not None:
        written = f"{format_quantity(flash['host_write_bytes'], 'B')} written, {flash['collections']} blocks collected"
        lines.append(f"write amplification: {flash['write_amplification']:.3f} ({written})")
        lines.append(f"endurance: {format_quantity(found['endurance']['writable_bytes'], 'B')} at this amplification")
    lines.append(f"energy: {_joules(energy) if energy['modelled'] else 'not modelled, the card has no energies'}")
    lines.append("busy: " + ", ".join(f"{name.replace('_', ' ')} {share:.0%}" for name, share in busy.items()))
    if flash["cache_took_all"]:
        lines.append("write cache: it took every write at once, so that no write waited for the flash")
    if found["errors"]:
        lines.append(f"errors: {found['errors']} requests met an uncorrectable page")
    if found["simulated_blocks"] < 1:
        least, all_blocks = found["simulated"]["blocks"], found["simulated"]["of_blocks"]
        pages, all_pages = found["simulated"]["pages"], found["simulated"]["of_pages"]
        lines.append(
            f"simulated on {found['simulated_blocks']:.1%} of the flash: {least} of {all_blocks} blocks of a plane, "
            f"{pages} of {all_pages} pages of a block"
        )
    if formulas is None:
        if found["wrapped"]:
            lines.append(
                f"addresses: {found['wrapped']} requests reach beyond what is simulated, and wrap to its start"
            )
        return [*lines, f"measured in the trace: lat={format_seconds(found['measured_lat_mean_s'])}"]
    rate = f"IOPS={_short(formulas['iops'])} ({formulas['difference']:+.1%})"
    lines.append(f"by formulas: {rate}, lat={format_seconds(formulas['lat_mean_s'])}, bound by {formulas['bound']}")
    return lines


def _joules(energy: Mapping[str, float]) -> str:
    per_byte = format_quantity(energy["j_per_byte"], "J")
    return f"{format_quantity(energy['total_j'], 'J')}, {format_quantity(energy['power_w'], 'W')}, {per_byte}/B"


def _rate(nbytes: float) -> str:
    """Bytes per second as fio writes them, in binary and in decimal units."""
    if nbytes >= 10 * 2**20:
        return f"{nbytes / 2**20:.0f}MiB/s ({nbytes / 1e6:.0f}MB/s)"
    return f"{nbytes / 2**10:.0f}KiB/s ({nbytes / 1e3:.0f}kB/s)"


def _short(value: float) -> str:
    """A rate as fio writes it: 192k."""
    for scale, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= scale * 10 or (scale == 1e6 and value >= scale):
            return f"{value / scale:.4g}{suffix}"
    return f"{value:.0f}"


def _unit(largest_ns: float, usual_ns: float) -> tuple[float, str]:
    """The unit in which neither is lost."""
    for scale, unit in UNITS:
        if largest_ns >= 10 * scale and usual_ns >= scale:
            return max(scale, 1.0), unit
    return 1.0, "nsec"
