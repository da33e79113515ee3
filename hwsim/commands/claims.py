"""`hwsim claims`: published figures against simulated ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, say
from hwsim.errors import CheckFailed
from hwsim.progress import Progress
from hwsim.units import format_quantity

if TYPE_CHECKING:
    from hwsim.claims import Outcome

ENFORCED = ("exact",)


def claims(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Claims to check; all by default.")] = None,
    json: options.Json = False,
) -> None:
    """Published against simulated; exit code 1 where an exact claim does not hold."""
    from hwsim.claims import check_claims

    with Progress("claim") as progress:
        outcomes = check_claims(ids or [], listener=lambda claim, part: progress.done(part, claim))
    if json:
        print_json([{**asdict(o), "ratio": o.ratio, "holds": o.holds} for o in outcomes])
    else:
        rows = [_row(outcome) for outcome in outcomes]
        print_table(rows, ("claim", "figure", "kind", "published", "simulated", "ratio", "holds", "source"))
        for line in dict.fromkeys(line for outcome in outcomes for line in _remarks(outcome)):
            say(line)
    failed = [o for o in outcomes if o.kind in ENFORCED and not o.holds]
    if failed:
        raise CheckFailed("\n".join(f"{o.claim}, {o.figure}: {o.error or f'ratio {o.ratio:.4g}'}" for o in failed))


def _row(outcome: Outcome) -> list[str]:
    found = outcome.simulated
    simulated = outcome.error if found is None else _number(found, outcome.quantity)
    ratio = "" if outcome.ratio is None else f"{outcome.ratio:.4f}"
    holds = {True: "yes", False: "NO", None: "not simulated"}[outcome.holds]
    published = _number(outcome.published, outcome.quantity)
    where = f"{outcome.source} [{outcome.mark}]"
    kind = f"{outcome.kind} on this row" if outcome.figure in outcome.fitted else outcome.kind
    return [outcome.claim, outcome.figure, kind, published, simulated, ratio, holds, where]


def _remarks(outcome: Outcome) -> Iterator[str]:
    """What is to be known of a claim, and of this figure of it."""
    if outcome.note:
        yield f"{outcome.claim}: {outcome.note.strip()}"
    if outcome.fitted:
        yield f"{outcome.claim}: fitted: {', '.join(outcome.fitted)}"
    if outcome.remark:
        yield f"{outcome.claim}, {outcome.figure}: {outcome.remark.strip()}"


def _number(value: float, quantity: str) -> str:
    whole = quantity == "1" and value == int(value)
    return f"{int(value):,}" if whole else format_quantity(value, quantity)
