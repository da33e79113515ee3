"""What-if figures: changes of a card's data, and what follows from them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from hwsim.errors import CardError, InputError, Problem, nearest_name
from hwsim.units import parse

PACE: Mapping[str, str] = {"units": "1", "clock": "Hz"}
"""Figures of ``compute`` to which the rates of all units together are proportional."""


def changed(data: dict[Any, Any], changes: Mapping[str, object]) -> dict[Any, Any]:
    """A copy of the card's data with the figures at the given paths replaced; memories and links go by name.

    As each unit stays what it is, another count or clock of them scales the rates of ``compute`` and the bandwidths of
    caches, as far as these are not changed themselves.
    """
    if not changes:
        return data
    old, data = data, deepcopy(data)
    data["sources"] = {**data.get("sources", {}), "what-if": {"title": "changed by the user"}}
    for path, value in changes.items():
        *parents, last = path.split(".")
        place: Any = data
        for part in parents:
            place = _child(place, part, path)
        if not isinstance(place, dict):
            raise CardError(Problem("no such figure in the card", path=path))
        was = place.get(last)
        figure = not isinstance(value, bool) and (isinstance(was, dict) or was is None)
        place[last] = {"value": value, "mark": "assumed", "source": "what-if"} if figure else value
    for name, unit in PACE.items():
        if f"compute.{name}" in changes:
            _scale(data, changes, _Ratio.of(name, unit, old, data))
    return data


def _child(place: Any, part: str, path: str) -> Any:
    named = (
        {str(item.get("name")): item for item in place if isinstance(item, dict)} if isinstance(place, list) else place
    )
    if not isinstance(named, dict) or part not in named:
        known = list(named) if isinstance(named, dict) else []
        raise CardError(
            Problem(
                f"no '{part}' in the card",
                path=path,
                nearest=nearest_name(part, known),
                expected=", ".join(known),
            )
        )
    return named[part]


@dataclass(frozen=True, slots=True)
class _Ratio:
    """By what a figure of ``compute`` has changed, and how that is said."""

    value: float = 1.0
    note: str = ""

    @classmethod
    def of(cls, name: str, unit: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> _Ratio:
        """The new over the old figure; 1 where the card has none to start from, or what is no quantity above zero."""
        try:
            before, after = (parse(data["compute"][name]["value"], unit) for data in (old, new))
        except (InputError, KeyError, TypeError):
            return cls()
        return cls(after / before, f"scaled by {after:g}/{before:g} with compute.{name}") if before and after else cls()


def _scale(data: dict[Any, Any], kept: Collection[str], ratio: _Ratio) -> None:
    if ratio.value == 1.0:
        return
    for path, unit, place, name in _paced(data):
        figure = place.get(name)
        if path in kept or not isinstance(figure, dict):
            continue
        try:
            value = ratio.value * parse(figure["value"], unit)
        except (InputError, KeyError, TypeError):
            continue  # whoever reads the card's figures says what is wrong with them
        notes = [ratio.note, figure.get("note", "")]
        place[name] = figure | {"value": f"{value!r} {unit}", "mark": "derived", "note": "; ".join(filter(None, notes))}


def _paced(data: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[Any, Any], str]]:
    """The path and SI unit of each figure that follows the pace of the units, the mapping that holds it, its key."""
    compute = data["compute"]
    yield "compute.special", "FLOP/s", compute, "special"
    for kind in ("matmul", "vector"):
        rates = compute.get(kind)
        for fmt in list(rates) if isinstance(rates, dict) else []:
            yield f"compute.{kind}.{fmt}", "FLOP/s", rates, fmt
    for memory in data.get("memories") or []:
        if isinstance(memory, dict) and memory.get("kind") == "cache":
            for name in ("bandwidth", "write_bandwidth"):
                yield f"memories.{memory.get('name')}.{name}", "B/s", memory, name
