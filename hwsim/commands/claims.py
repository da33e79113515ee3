"""`hwsim claims`: published figures against simulated ones."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, say
from hwsim.errors import CheckFailed
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

    outcomes = check_claims(ids or [])
    if json:
        print_json([{**asdict(o), "ratio": o.ratio, "holds": o.holds} for o in outcomes])
    else:
        rows = [_row(outcome) for outcome in outcomes]
        print_table(rows, ("claim", "figure", "kind", "published", "simulated", "ratio", "holds", "source"))
        for claim in dict.fromkeys(o.claim for o in outcomes if o.note):
            say(f"{claim}: {next(o.note for o in outcomes if o.claim == claim).strip()}")
    failed = [o for o in outcomes if o.kind in ENFORCED and not o.holds]
    if failed:
        raise CheckFailed("\n".join(f"{o.claim}, {o.figure}: {o.error or f'ratio {o.ratio:.4g}'}" for o in failed))


def _row(outcome: Outcome) -> list[str]:
    simulated = outcome.error if outcome.simulated is None else _number(outcome.simulated, outcome.quantity)
    ratio = "" if outcome.ratio is None else f"{outcome.ratio:.4f}"
    holds = "yes" if outcome.holds else "NO"
    published = _number(outcome.published, outcome.quantity)
    where = f"{outcome.source} [{outcome.mark}]"
    return [outcome.claim, outcome.figure, outcome.kind, published, simulated, ratio, holds, where]


def _number(value: float, quantity: str) -> str:
    whole = quantity == "1" and value == int(value)
    return f"{int(value):,}" if whole else format_quantity(value, quantity)
