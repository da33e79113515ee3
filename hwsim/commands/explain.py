"""`hwsim explain`: what bounds a case of a study, and which figure of its cards and links would move it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands import options
from hwsim.commands.estimate import TOP_COLUMNS, top_kernels
from hwsim.commands.output import print_json, print_table, records, say, shown
from hwsim.errors import InputError, Problem
from hwsim.errors import shown as shown_value

if TYPE_CHECKING:
    from hwsim.card import Card
    from hwsim.study import StudyResults
    from hwsim.study.cases import Case, Plan

STEP = 1.10  # every figure is raised by 10 %
MOVERS = 8
NEGLIGIBLE = 1e-4  # relative change that is not worth a line


def explain(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="A results folder of hwsim run.")],
    case: Annotated[str, typer.Argument(metavar="CASE", help="The case's number, or the start of its key.")],
    json: options.Json = False,
) -> None:
    """What bounds a case, how close it is to its roofs, its top kernels, and what would move it."""
    from hwsim.study import read_results

    stored = read_results(result)
    row = _find(stored, case)
    if row["status"] != "ok":
        raise InputError(Problem(f"case {row['case']} has no figures: {row['error']}", str(result)))
    card = stored.cards[row["device"]]
    kernels = records(stored.kernels[stored.kernels["case"] == row["case"]])
    bounds = _bounds(kernels)
    plan, found = _again(stored, row)
    roofs = [*_roofs(row, kernels, card), *_system_roofs(plan, found, row["latency_s"])]
    movers = list(_movers(plan, found))
    if json:
        top = sorted(kernels, key=lambda kernel: -kernel["seconds"])
        print_json({"case": row, "bounds": bounds, "roofs": roofs, "kernels": top, "movers": movers})
        return
    _print(row, bounds, roofs, movers)
    print_table(top_kernels(kernels, row["latency_s"]), TOP_COLUMNS, "Most time")


def _find(stored: StudyResults, case: str) -> dict[str, Any]:
    """The row of the case with this number or whose key starts so."""
    rows = records(stored.cases)
    found = [row for row in rows if str(row["case"]) == case]
    if not found and len(case) >= 4:
        found = [row for row in rows if row["key"].startswith(case)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(Problem(f"{len(found)} cases have a key that starts with '{case}'"))
    raise InputError(
        Problem("no such case", got=shown_value(case), expected=f"1 to {len(rows)}, or the start of a key")
    )


def _bounds(kernels: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Seconds and share of the time by the resource that binds, the largest first."""
    seconds: dict[str, float] = {}
    for kernel in kernels:
        seconds[kernel["bound"]] = seconds.get(kernel["bound"], 0.0) + kernel["seconds"]
    total = sum(seconds.values()) or 1.0
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return [{"resource": name, "seconds": value, "share": value / total} for name, value in ordered]


def _roofs(row: dict[str, Any], kernels: list[dict[str, Any]], card: Card) -> Iterator[dict[str, Any]]:
    """How much of each roof the case reaches on average: bandwidths, and the matrix rate of its formats."""
    latency = row["latency_s"]
    for memory in card.memories:
        moved = row.get(f"{memory.name}_traffic_bytes") or 0.0
        if moved == moved and moved:
            yield _roof(memory.name, "B/s", moved / latency, memory.bandwidth)
    for unit, column, rates in (
        ("matmul", "matmul_flops", card.matmul or card.vector),
        ("vector", "vector_flops", card.vector),
    ):
        for dtype in dict.fromkeys(kernel["dtype"] for kernel in kernels if kernel[column]):
            flops = sum(kernel[column] for kernel in kernels if kernel["dtype"] == dtype)
            if dtype in rates:
                yield _roof(f"{unit} {dtype}", "FLOP/s", flops / latency, rates[dtype])


def _roof(name: str, unit: str, reached: float, peak: float) -> dict[str, Any]:
    return {"roof": name, "unit": unit, "reached": reached, "peak": peak, "share": reached / peak}


def _system_roofs(plan: Plan, case: Case, latency: float) -> Iterator[dict[str, Any]]:
    """The same of links, and of the memories of other devices, where a system ran."""
    from hwsim.study.sensitivity import usage_of

    own = {memory.name for memory in plan.targets[case.target].card.memories}
    for name, usage in usage_of(plan, case).items():
        if usage.busy and usage.nbytes and name not in own:
            yield _roof(name, "B/s", usage.nbytes / latency, usage.nbytes / usage.busy)


def _again(stored: StudyResults, row: dict[str, Any]) -> tuple[Plan, Case]:
    """The case as it would be simulated today, and its plan."""
    from hwsim.study.sensitivity import find_case, plan_of

    plan = plan_of(stored)
    found = find_case(plan, row["case"])
    if found.key != row["key"]:
        say("note: code, card or model have changed since this result; what would move it is simulated with today's")
    return plan, found


def _movers(plan: Plan, case: Case) -> Iterator[dict[str, Any]]:
    """Relative change of latency and energy when a figure is raised by 10 %, the strongest first."""
    from hwsim.study.sensitivity import sensitivities

    changes = [
        {"figure": change.figure, "mark": change.before.mark, "latency": change.latency, "energy": change.energy}
        for change in sensitivities(plan, case, STEP)
    ]

    def strength(change: dict[str, Any]) -> float:
        return max(abs(float(change["latency"])), abs(float(change["energy"])))

    yield from sorted((c for c in changes if strength(c) > NEGLIGIBLE), key=strength, reverse=True)[:MOVERS]


def _print(
    row: dict[str, Any], bounds: list[dict[str, Any]], roofs: list[dict[str, Any]], movers: list[dict[str, Any]]
) -> None:
    from hwsim.units import format_quantity

    inputs = ", ".join(f"{name} {row[name]}" for name in ("phase", "batch", "prompt", "dtype", "mapper"))
    first = bounds[0]
    closest = max(roofs, key=lambda roof: roof["share"], default=None)
    verdict = f"bound by {first['resource']} for {first['share']:.0%} of {shown('seconds', row['latency_s'])}"
    if closest is not None:
        verdict += f"; closest to the roof of {closest['roof']}: {closest['share']:.0%}"
    print(f"{row['model']} on {row['device']} ({inputs}): {verdict}")
    print_table(
        [[bound["resource"], shown("seconds", bound["seconds"]), f"{bound['share']:.1%}"] for bound in bounds],
        ("bound by", "time", "share"),
    )
    print_table(
        [
            [
                roof["roof"],
                format_quantity(roof["reached"], roof["unit"]),
                format_quantity(roof["peak"], roof["unit"]),
                f"{roof['share']:.1%}",
            ]
            for roof in roofs
        ],
        ("roof", "reached", "peak", "share"),
        "How close to the roofs, on average",
    )
    print_table(
        [[change["figure"], f"{change['latency']:+.2%}", f"{change['energy']:+.2%}"] for change in movers],
        ("figure, +10 %", "latency", "energy"),
        "What would move it",
    )
