"""Figures in files: a quantity with its mark and its source, as cards and systems write them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict

from hwsim.units import parse

MARKS = ("datasheet", "paper", "measured", "calibrated", "derived", "assumed")
"""Where figures are from; what is calibrated stands in no card but in a calibration beside it."""
Mark: TypeAlias = Literal["datasheet", "paper", "measured", "derived", "assumed"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of a card in SI units, with where it comes from."""

    value: float
    unit: str
    mark: str
    source: str
    note: str = ""


def figure_rows(figures: Mapping[str, Figure], sources: Mapping[str, str]) -> list[dict[str, Any]]:
    """Figures by their dotted path, as plain data with the titles of their ``sources``."""
    return [
        {
            "figure": path,
            "value": figure.value,
            "unit": figure.unit,
            "mark": figure.mark,
            "source": sources.get(figure.source, figure.source),
            "note": figure.note,
        }
        for path, figure in figures.items()
    ]


class Strict(BaseModel):
    """A mapping of a file in which unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FigureFile(Strict):
    """`{value: 4.8 TB/s, mark: datasheet, source: h200-ds}`."""

    value: str | float
    mark: Mark
    source: str
    note: str = ""


def _in(unit: str) -> AfterValidator:
    """Turns a written figure into a `Figure` in ``unit``."""

    def parse_figure(given: FigureFile) -> Figure:
        return Figure(parse(given.value, unit), unit, given.mark, given.source, given.note)

    return AfterValidator(parse_figure)


Count: TypeAlias = Annotated[FigureFile, _in("1")]
Bytes: TypeAlias = Annotated[FigureFile, _in("B")]
Rate: TypeAlias = Annotated[FigureFile, _in("B/s")]
Seconds: TypeAlias = Annotated[FigureFile, _in("s")]
Flops: TypeAlias = Annotated[FigureFile, _in("FLOP/s")]
Hertz: TypeAlias = Annotated[FigureFile, _in("Hz")]
Watts: TypeAlias = Annotated[FigureFile, _in("W")]
Joules: TypeAlias = Annotated[FigureFile, _in("J")]
PerByte: TypeAlias = Annotated[FigureFile, _in("J/B")]
PerFlop: TypeAlias = Annotated[FigureFile, _in("J/FLOP")]


class SourceFile(Strict):
    """Where figures are from: a title, an address, a date."""

    title: str
    url: str = ""
    date: str | int = ""
