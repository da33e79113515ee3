"""`hwsim dram bench`: what a memory gives for an access pattern."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Protocol, cast

import typer

from hwsim.commands import options
from hwsim.commands.groups import grouped
from hwsim.commands.listing import Parts, print_part, print_rows
from hwsim.commands.output import print_json, print_table, say, shown
from hwsim.errors import InputError
from hwsim.progress import Progress
from hwsim.units import format_quantity, parse

MAX_QUEUE = 4096  # places, as in cards

app = typer.Typer(help="DRAM: bandwidth, latency and energy by access pattern.")


def _quantity(unit: str) -> Callable[[str | float], float]:
    def read(text: str | float) -> float:
        try:
            return parse(text, unit)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None

    return read


def _whole(text: str | int) -> int:
    """A count with powers of 1000, as benchmarks write them: 1M requests."""
    scale = {"k": 10**3, "m": 10**6, "g": 10**9}.get(str(text)[-1:].lower(), 1)
    number = str(text)[:-1] if scale > 1 else str(text)
    try:
        value = float(number) * scale
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15 or value != int(value):
        raise typer.BadParameter(f"not a count: got '{text}', expected such as 200000, 200k or 1M")
    return int(value)


def _places(text: str | int) -> int:
    """Places of a queue."""
    value = _whole(text)
    if not 1 <= value <= MAX_QUEUE:
        raise typer.BadParameter(f"got {value}, expected from 1 to {MAX_QUEUE} places")
    return value


@dataclass(frozen=True, slots=True)
class Load:
    """Which requests come, and when."""

    pattern: Annotated[
        Literal["stream", "linear", "stride", "random", "chase"], typer.Option(help="The order of addresses.")
    ] = "stream"
    size: Annotated[
        int | None,
        typer.Option(
            parser=options.nbytes, metavar="BYTES", help="Of a request, whole bursts: 64, 4k.", show_default="a burst"
        ),
    ] = None
    stride: Annotated[
        int, typer.Option(parser=options.nbytes, metavar="BYTES", help="Between requests of a stride, whole bursts.")
    ] = 4096
    read_share: Annotated[
        float, typer.Option(parser=_quantity("1"), metavar="SHARE", help="Reads among requests: 67%.")
    ] = 1.0
    requests: Annotated[int, typer.Option(parser=_whole, metavar="NUMBER", help="How many: 200k, 1M.")] = 200_000
    channels: Annotated[int, typer.Option(min=1, help="How many of the card's channels.")] = 1
    outstanding: Annotated[int, typer.Option(help="Reads in flight at most; 0: no limit.")] = 0
    interval: Annotated[
        float,
        typer.Option(parser=_quantity("s"), metavar="TIME", help="Between two arrivals; 0: as fast as they are taken."),
    ] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Of random addresses.")] = 0


@dataclass(frozen=True, slots=True)
class Controller:
    """How the controller works where it is not as the card says."""

    depth: Annotated[
        int | None,
        typer.Option(
            parser=_places, metavar="NUMBER", help="Places of a channel's read queue.", show_default="the card's"
        ),
    ] = None
    write_depth: Annotated[
        int | None,
        typer.Option(parser=_places, metavar="NUMBER", help="Of its write queue.", show_default="card's"),
    ] = None
    mapping: Annotated[
        str | None, typer.Option(help="Of addresses, such as RoBaRaCoCh.", show_default="the card's")
    ] = None
    page: Annotated[
        Literal["open", "closed"] | None,
        typer.Option(help="What becomes of a row after its access.", show_default="the card's"),
    ] = None
    row_accesses: Annotated[
        int | None, typer.Option(min=0, help="Close a row after so many; 0: never.", show_default="the card's")
    ] = None
    scheduler: Annotated[
        Literal["frfcfs", "frfcfs-hits"] | None,
        typer.Option(help="frfcfs-hits: no row is closed before older hits are served.", show_default="the card's"),
    ] = None
    refresh: Annotated[bool, typer.Option("--refresh/--no-refresh", help="Refresh as the card says, or never.")] = True
    refresh_mode: Annotated[
        Literal["all-bank", "per-bank"] | None, typer.Option(help="How to refresh.", show_default="the card's")
    ] = None
    forwarding: Annotated[
        bool | None,
        typer.Option(
            "--forwarding/--no-forwarding", help="Answer reads from queued writes.", show_default="the card's"
        ),
    ] = None

    @property
    def changes(self) -> dict[str, Any]:
        """What is given, by the card's names."""
        chosen = asdict(self)
        chosen |= {"read_queue": chosen.pop("depth"), "write_queue": chosen.pop("write_depth")}
        chosen["refresh"] = chosen.pop("refresh_mode") if self.refresh else "none"
        return {name: value for name, value in chosen.items() if value is not None}


@app.command()
@grouped
def bench(
    card: Annotated[str, typer.Argument(metavar="CARD", help="A DRAM card's name, or a path to one.")],
    load: Load,
    controller: Controller,
    json: options.Json = False,
) -> None:
    """Bandwidth, latency and energy of a memory under a load, simulated command by command and by formulas."""
    question = {**asdict(load), "controller": controller.changes}
    with Progress() as progress:
        found = harness().bench(card, question, progress.done)
    if json:
        print_json(found)
    else:
        _print(found)


@app.command("list")
def list_cards(json: options.Json = False) -> None:
    """The DRAM cards that ship."""
    print_rows(harness().cards(), json)


@app.command()
def show(
    card: Annotated[str, typer.Argument(metavar="CARD", help="A DRAM card's name, or a path to one.")],
    json: options.Json = False,
) -> None:
    """A DRAM card with the mark and source of every figure."""
    print_part(harness().show(card), json)


class Harness(Parts, Protocol):
    """What the room of devices does for these commands."""

    def bench(
        self, card: str, question: Mapping[str, Any], progress: Callable[[float], None] | None
    ) -> dict[str, Any]: ...


def harness() -> Harness:
    """The room's side of these commands."""
    from hwsim.registry import load_plugin

    return cast("Harness", load_plugin("hwsim.harnesses", "dram"))


def _print(found: Mapping[str, Any]) -> None:
    """The answer for people: what was asked, what came out, what the formulas say."""
    asked = f"{found['pattern']}, {found['size_bytes']} B requests, {found['read_share']:.0%} reads"
    rows = [
        ("bandwidth", format_quantity(found["bandwidth_bytes_per_s"], "B/s")),
        ("of the pins", f"{found['fraction_of_peak']:.1%} of {format_quantity(found['peak_bytes_per_s'], 'B/s')}"),
    ]
    rows += [
        (f"latency {name}", shown("_s", found[f"latency_{name}_s"]))
        for name in ("mean", "p50", "p99")
        if f"latency_{name}_s" in found
    ]
    bursts = sum(found[name] for name in ("row_hits", "row_misses", "row_conflicts"))
    for name in ("row_hits", "row_misses", "row_conflicts"):
        rows.append((name.replace("_", " "), f"{found[name] / max(bursts, 1):.1%}"))
    if found["energy_parts_j"]:
        rows += [(f"energy {part}", shown("_j", joules)) for part, joules in found["energy_parts_j"].items()]
        rows.append(("energy per bit", format_quantity(found["energy_j_per_bit"], "J") + "/bit"))
    formulas = format_quantity(found["analytic_bandwidth_bytes_per_s"], "B/s")
    rows.append(
        ("by formulas", f"{formulas} ({found['analytic_difference']:+.1%}), bound by {found['analytic_bound']}")
    )
    rows.append(("one read, by formulas", shown("_s", found["analytic_latency_s"])))
    channels = f"{found['channels']} channel{'s' if found['channels'] > 1 else ''} of {found['card']}"
    print_table(rows, ("figure", "value"), f"{channels}: {asked}")
    if found["energy_parts_j"] is None:
        say(f"hwsim: {found['card']} has no energies")
