"""Calibrations: constants of a device fitted to measurements, kept apart from its card in devices/calibrations/.

A file says which rows were fitted, gives every constant with its 90 % confidence interval, and the spread of measured
over predicted, cross-validated on these rows, which becomes the interval of every estimate. A card without a file of
its own takes one of its generation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field

from hwsim.card import Calibrated, Card, Figure, Spread
from hwsim.errors import CardError
from hwsim.registry import data_files, load_plugin, plugins
from hwsim.yamlfile import load_yaml, validate

CALIBRATION_GROUP = "hwsim.calibrations"


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant that measurements may fit: ``neutral`` is what an uncalibrated card takes, as of an ideal device;
    fits stay within ``low`` and ``high``. Times tell it, or joules if ``energy``; one that is ``fixed`` holds for all
    devices of a family, and is a parameter of the card only for what-if questions."""

    unit: str
    neutral: float
    low: float
    high: float
    meaning: str
    energy: bool = False
    fixed: bool = False


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
    """A constant in SI units with the bounds of its confidence interval, and the calibration that it is taken from
    where the rows at hand do not tell it."""

    value: float = Field(allow_inf_nan=False)
    low: float
    high: float
    unit: str = "1"
    taken_from: str = ""


class SpreadFile(_Strict):
    """Measured over predicted: the bounds of 90 % of rows, from fitted ones that a fit of the others predicts, and the
    mean absolute error on ``rows`` unseen ones, where there are any."""

    rows: int
    low: float = Field(gt=0)
    high: float = Field(gt=0)
    mape: float | None = None


class Calibration(_Strict):
    """One file of devices/calibrations/. ``spreads``: by family of kernels, then cold or warm (or a mode)."""

    calibration: str
    device: str
    family: str
    generation: str | None = None
    date: str
    sources: list[SourceRows]
    constants: dict[str, Fitted]
    spreads: dict[str, dict[str, SpreadFile]] = Field(default_factory=dict)

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


def calibrated(card: Card, calibration: Calibration, kept: Mapping[str, object] | None = None) -> Card:
    """``card`` with the constants of ``calibration``, except for parameters among the what-if figures ``kept``."""
    own = calibration.device == card.name
    _check(card, calibration)
    changed = {path.removeprefix("parameters.") for path in kept or {}}
    figures = {name: figure for name, figure in _figures(calibration, own) if name not in changed}
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
    return {
        family: {state: Spread(spread.low, spread.high) for state, spread in states.items()}
        for family, states in calibration.spreads.items()
    }


def _figures(calibration: Calibration, own: bool) -> Iterator[tuple[str, Figure]]:
    for name, fitted in calibration.constants.items():
        place = f"taken from {fitted.taken_from}, " if fitted.taken_from else ""
        other = "" if own else f"of {calibration.device}, the same generation: "
        note = f"{other}{place}90 % within {fitted.low:.3g} to {fitted.high:.3g}"
        yield name, Figure(fitted.value, fitted.unit, "calibrated", calibration.calibration, note)


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
