"""Reading a results folder back: frames of cases and kernels, the cards, and the record of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.card import Card, Figure, Link, Memory
from hwsim.errors import InputError, Problem
from hwsim.study.store import CASES, KERNELS, RUN
from hwsim.study.tables import read_table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyResults:
    """A results folder. ``cards`` go by the names in the column ``device``; ``record`` is run.json."""

    folder: Path
    cases: pd.DataFrame
    kernels: pd.DataFrame
    cards: Mapping[str, Card]
    record: Mapping[str, Any]


def read_results(folder: str | Path) -> StudyResults:
    """The results in ``folder``; `InputError` where it holds none or they are damaged."""
    folder = Path(folder)
    record = _record(folder)
    cases, kernels = read_table(folder / CASES), read_table(folder / KERNELS)
    if cases is None or kernels is None:
        raise InputError(Problem("no results in this folder", str(folder), expected="a folder that hwsim run wrote"))
    cards = {label: card_from(system) for label, system in record["systems"].items()}
    return StudyResults(folder, cases.to_pandas(), kernels.to_pandas(), cards, record)


def card_data(card: Card) -> dict[str, Any]:
    """A card as JSON data: SI units, every figure with its source, null for a limit that the card does not state."""
    data = asdict(card)
    data["limit"] = card.limit if isfinite(card.limit) else None
    return data


def card_from(data: Mapping[str, Any]) -> Card:
    """The inverse of `card_data`."""
    fields = {name: data[name] for name in Card.__dataclass_fields__ if name in data}
    fields["memories"] = tuple(Memory(**memory) for memory in data["memories"])
    fields["links"] = tuple(Link(**link) for link in data["links"])
    fields["limit"] = inf if data["limit"] is None else data["limit"]
    for name in ("figures", "parameters"):
        fields[name] = {path: Figure(**figure) for path, figure in data[name].items()}
    return Card(**fields)


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RUN
    try:
        record = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        expected = "a folder that hwsim run wrote"
        raise InputError(Problem("no results in this folder", str(folder), expected=expected)) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from None
    except ValueError as error:
        raise InputError(Problem(f"not a record of a run: {error}", str(path))) from None
    if not isinstance(record, dict) or not isinstance(record.get("systems"), dict):
        raise InputError(Problem("not a record of a run", str(path)))
    return record
