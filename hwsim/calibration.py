"""Calibrations: constants of a device fitted to measurements, kept apart from its card in devices/calibrations/.

A file says which rows were fitted, gives every constant with its 90 % confidence interval, and the spread of measured
over predicted, cross-validated on these rows, which becomes the interval of every estimate. A card without a file of
its own takes one of its generation. What a file has no spread of is as uncertain as estimates from cards alone are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field

from hwsim.card import Calibrated, Card, Figure, Spread
from hwsim.errors import CardError
from hwsim.registry import data_files, load_plugin, plugins
from hwsim.units import format_quantity
from hwsim.yamlfile import load_yaml, validate

CALIBRATION_GROUP = "hwsim.calibrations"
UNCALIBRATED = "uncalibrated devices of the family"


class Told(StrEnum):
    """What tells a constant: measured kernels, whole models that the host launches op by op, or no fit: it holds for
    all devices of a family, and is a parameter of the card only for what-if questions."""

    SECONDS = "seconds"
    JOULES = "joules"
    MODELS = "models"
    FAMILY = "family"


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant that measurements may fit, ``told`` by some of them, within ``low`` and ``high``.

    An uncalibrated card takes its figure ``instead`` (a dotted path, the host's link by that name), else ``neutral``:
    what an ideal device has, or what the module of the constant says.
    """

    unit: str
    neutral: float
    low: float
    high: float
    meaning: str
    told: Told = Told.SECONDS
    instead: str = ""

    def figure_of(self, card: Card) -> Figure | None:
        """The figure of ``card`` that it stands instead of, if there is one."""
        link = card.link("host")
        path = self.instead.replace("links.host", f"links.{link.name}") if link else self.instead
        return card.figures.get(path)

    def uncalibrated(self, card: Card) -> float:
        """Its value where nobody has fitted it."""
        figure = self.figure_of(card)
        return self.neutral if figure is None else figure.value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SourceRows(_Strict):
    """A measurement file: how many kernels and models it has, how many of them constants were fitted to (among one of
    ``parts`` shares, by a hash of their shapes), and what its header says of the machine."""

    measurements: str
    rows: int
    fitted: int
    parts: int
    made_with: list[str] = Field(default_factory=list)


class Fitted(_Strict):
    """A constant in SI units with the bounds of its confidence interval, the calibration that it is taken from where
    the rows at hand do not tell it, and a ``remark`` where they tell it badly."""

    value: float = Field(allow_inf_nan=False)
    low: float
    high: float
    unit: str = "1"
    taken_from: str = ""
    remark: str = ""


class SpreadFile(_Strict):
    """Measured over predicted: the bounds of 90 % of rows, from fitted ones that a fit of the others predicts, and the
    mean absolute error on ``rows`` unseen ones, where there are any; or the bounds that a calibration of another device
    has, which the constants are ``taken_from`` too."""

    rows: int = 0
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    mape: float | None = None
    taken_from: str = ""


class Calibration(_Strict):
    """One file of devices/calibrations/. ``spreads``: by family of kernels, then cold or warm; of whole models, by what
    sets their pace. ``uncalibrated``: the same of the card alone, before any fit, for devices whose rows tell less."""

    calibration: str
    device: str
    family: str
    generation: str | None = None
    date: str
    sources: list[SourceRows]
    constants: dict[str, Fitted]
    spreads: dict[str, dict[str, SpreadFile]] = Field(default_factory=dict)
    uncalibrated: dict[str, dict[str, SpreadFile]] = Field(default_factory=dict)

    def values(self) -> dict[str, float]:
        """The constants in SI units."""
        return {name: fitted.value for name, fitted in self.constants.items()}


def read_calibration(source: Path | Traversable) -> Calibration:
    """Read a calibration file; raises `CardError` with file, line and field of what is wrong."""
    data, marks = load_yaml(source)
    return validate(Calibration, data, marks, str(source), CardError)


def write_calibration(calibration: Calibration, path: Path) -> None:
    """Write ``calibration`` as YAML, numbers to four digits."""
    data = calibration.model_dump(exclude_defaults=True)
    head = "# yaml-language-server: $schema=../../schemas/calibration.schema.json\n"
    path.write_text(head + yaml.safe_dump(_rounded(data), sort_keys=False, width=120), "utf-8")


def find_calibration(card: Card) -> Calibration | None:
    """The calibration made on the spot or shipped for ``card``, else the first of its generation, else None."""
    if card.name in plugins(CALIBRATION_GROUP):
        made = cast("Callable[[], Path | None]", load_plugin(CALIBRATION_GROUP, card.name))()
        return None if made is None else read_calibration(made)
    shipped = data_files("hwsim.devices", "calibrations")
    if card.name in shipped:
        return read_calibration(shipped[card.name])
    if card.generation is None:
        return None
    found = (read_calibration(file) for file in shipped.values())
    return next((known for known in found if known.generation == card.generation), None)


def has_own(card: Card, name: str) -> bool:
    """Whether ``card`` knows a constant from a source of its own, which is better than another device's fit."""
    figure = card.parameters.get(name)
    return figure is not None and figure.mark not in ("assumed", "calibrated")


def calibrated(
    card: Card,
    calibration: Calibration,
    kept: Mapping[str, object] | None = None,
    constants: Mapping[str, Constant] | None = None,
) -> Card:
    """``card`` with what ``calibration`` says of its ``constants``.

    Parameters among the what-if figures ``kept`` stay, and the card's own figures where those of the calibration are
    another device's.
    """
    own = calibration.device == card.name
    _check(card, calibration)
    changed = {path.removeprefix("parameters.") for path in kept or {}}
    figures = {}
    for name, fitted in calibration.constants.items():
        borrowed = bool(fitted.taken_from) or not own
        if name not in changed and not (borrowed and has_own(card, name)):
            replaced = _replaced(card, name, constants or {}) if borrowed else None
            figures[name] = _figure(fitted, calibration, own, replaced)
    return replace(
        card,
        parameters={**card.parameters, **figures},
        figures={**card.figures, **{f"parameters.{name}": figure for name, figure in figures.items()}},
        sources={**card.sources, calibration.calibration: _origin(calibration)},
        calibration=Calibrated(
            calibration.calibration,
            own,
            _spreads(calibration),
            {source.measurements: source.parts for source in calibration.sources},
        ),
    )


def _check(card: Card, calibration: Calibration) -> None:
    if calibration.family != card.family:
        raise CardError(
            f"calibration '{calibration.calibration}' is of family '{calibration.family}', "
            f"card '{card.name}' of family '{card.family}'"
        )


def _spreads(calibration: Calibration) -> dict[str, dict[str, Spread]]:
    """Those of the calibration; of families and states that it does not have, those of cards alone."""
    found = {family: dict(states) for family, states in _uncalibrated(calibration.family).items()}
    for family, states in calibration.spreads.items():
        own = {state: Spread(spread.low, spread.high, spread.taken_from) for state, spread in states.items()}
        found[family] = {**found.get(family, {}), **own}
    return found


@lru_cache(maxsize=8)
def _uncalibrated(family: str) -> Mapping[str, Mapping[str, Spread]]:
    """How far cards alone of a family of devices are off, wherever that was measured: the widest bounds of all, with
    what is estimated among them, as no other card need be off to the same side."""
    found: dict[str, dict[str, Spread]] = {}
    for file in data_files("hwsim.devices", "calibrations").values():
        known = read_calibration(file)
        for kernels, states in known.uncalibrated.items() if known.family == family else ():
            for state, spread in states.items():
                widest = found.setdefault(kernels, {}).get(state, Spread(1.0, 1.0))
                bounds = min(widest.low, spread.low), max(widest.high, spread.high)
                found[kernels][state] = Spread(*bounds, f"{UNCALIBRATED} '{family}'")
    return found


def _replaced(card: Card, name: str, constants: Mapping[str, Constant]) -> Figure | None:
    """The card's figure that another device's constant takes the place of, if any."""
    own = card.parameters.get(name)
    return constants[name].figure_of(card) if own is None and name in constants else own


def _figure(fitted: Fitted, calibration: Calibration, own: bool, replaced: Figure | None) -> Figure:
    """A constant as a figure of a card, whose own figure it may have ``replaced``."""
    other = "" if own else f"of {calibration.device}, the same generation: "
    place = f"taken from {fitted.taken_from}, " if fitted.taken_from else ""
    instead = f"instead of {format_quantity(replaced.value, replaced.unit)} ({replaced.mark}), " if replaced else ""
    remark = f", {fitted.remark}" if fitted.remark else ""
    note = f"{other}{place}{instead}90 % within {fitted.low:.3g} to {fitted.high:.3g}{remark}"
    return Figure(fitted.value, fitted.unit, "calibrated", calibration.calibration, note)


def _origin(calibration: Calibration) -> str:
    rows = ", ".join(
        f"{source.fitted} of {source.rows} rows of {source.measurements}" for source in calibration.sources
    )
    return f"hwsim calibrate, {calibration.date}: {rows}"


def _rounded(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    return float(f"{data:.4g}") if isinstance(data, float) else data
