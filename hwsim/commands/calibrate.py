"""`hwsim calibrate`: fit the constants of a device to measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, say
from hwsim.errors import InputError

if TYPE_CHECKING:
    from hwsim.calibration import Calibration

HALF, TENTH = 2, 10
TABLES = ":"  # in names of public tables, which are large: a tenth of them is fitted


def calibrate(
    measurements: Annotated[
        list[str], typer.Argument(metavar="MEASUREMENTS...", help="Shipped measurements by name, CSV files, or tables.")
    ],
    device: options.Device,
    out: Annotated[
        Path | None, typer.Option(help="Where to write the calibration.", show_default="DEVICE.yaml")
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="A calibration that gives the constants which these rows do not tell.")
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(min=1, help="Fit one of so many shares of the rows.", show_default="2; 10 of public tables"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Fit a device's constants to measured kernels, and check them on the rows that were not fitted."""
    from hwsim.calibrating import Share
    from hwsim.calibrating import calibrate as fitted
    from hwsim.calibration import read_calibration, write_calibration
    from hwsim.device import load_device
    from hwsim.fitting import Calibratable
    from hwsim.measurements import read_measurements

    target = load_device(device, calibration=base)
    if not isinstance(target, Calibratable):
        raise InputError(f"devices of family '{target.card.family}' have no constants to fit")
    shares = [Share(read_measurements(name), parts or (TENTH if TABLES in name else HALF)) for name in measurements]
    found = fitted(target, shares, read_calibration(base) if base else None, progress=say)
    path = out or Path(f"{target.card.name}.yaml")
    try:
        write_calibration(found, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}") from None
    say(f"wrote {path}")
    if json:
        print_json(found.model_dump(exclude_defaults=True))
    else:
        _print(found)


def _print(found: Calibration) -> None:
    """The constants, and how far the rows that were not fitted are off with them."""
    rows = [
        (name, f"{known.value:.4g}", f"{known.low:.3g} to {known.high:.3g}", known.unit, known.taken_from, known.remark)
        for name, known in found.constants.items()
    ]
    titles = ("constant", "value", "90 % interval", "unit", "taken from", "remark")
    print_table(rows, titles, f"{found.device}: constants")
    spread = [
        (family, state, known.rows, _percent(known.mape), f"{known.low:.2f} to {known.high:.2f}")
        for family, states in found.spreads.items()
        for state, known in states.items()
    ]
    if spread:
        print_table(spread, ("family", "cache", "unseen rows", "MAPE", "measured / predicted"), "on rows not fitted")
    else:
        say("no rows were left to check it on: how far it is off is not known")


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:.1%}"
