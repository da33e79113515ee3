"""Where the figures of the cards come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import hwsim
from hwsim.card import MARKS, Card
from hwsim.units import format_quantity

MEANING = {
    "datasheet": "the maker's own figure",
    "paper": "published by others",
    "measured": "timed on the device",
    "derived": "calculated from other figures",
    "assumed": "nobody publishes it: an estimate, with its reason in the note",
}


@dataclass(frozen=True, slots=True)
class Source:
    """One figure of a card with its provenance."""

    path: str
    text: str
    exact: str
    mark: str
    source: str
    note: str


@dataclass(frozen=True, slots=True)
class CardSources:
    """A card with all of its figures, and how many bear each mark."""

    label: str
    card: Card
    figures: tuple[Source, ...]
    counts: Mapping[str, int]


def sources_of(cards: Mapping[str, Card]) -> list[CardSources]:
    """The figures of every card in the order of the card."""
    return [CardSources(label, card, _figures(card), _counts([card])) for label, card in cards.items()]


def mark_counts(cards: Mapping[str, Card]) -> dict[str, int]:
    """How many figures of all cards together bear each mark."""
    return _counts(list(cards.values()))


def accuracy_text() -> str:
    """The current error table of the documentation, "" where the package was installed without it."""
    path = Path(hwsim.__file__).parents[1] / "docs" / "accuracy.md"
    return path.read_text("utf-8") if path.is_file() else ""


def _figures(card: Card) -> tuple[Source, ...]:
    return tuple(
        Source(
            path,
            format_quantity(figure.value, figure.unit),
            f"{figure.value:.6g} {figure.unit}",
            figure.mark,
            card.sources.get(figure.source, figure.source),
            figure.note,
        )
        for path, figure in card.figures.items()
    )


def _counts(cards: list[Card]) -> dict[str, int]:
    marks = [figure.mark for card in cards for figure in card.figures.values()]
    return {mark: marks.count(mark) for mark in MARKS if mark in marks}
