"""`hwsim predict` and `hwsim measure`: single kernels, simulated and timed."""

from __future__ import annotations

import json as json_module
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, say, shown
from hwsim.errors import InputError, PluginError, Problem
from hwsim.errors import shown as repeated

if TYPE_CHECKING:
    from hwsim.kernel_ops import SpecOp

RESULT = ("seconds", "joules", "bound", "traffic", "seconds_low", "seconds_high")


def predict(
    ops: Annotated[Path, typer.Argument(metavar="OPS.json", help="A JSON list of kernels (docs: kernel interchange).")],
    device: options.Device,
    cache: Annotated[
        Literal["cold", "warm"], typer.Option(help="cold: a single launch with empty caches; warm: back to back.")
    ] = "cold",
    calibration: options.Calibration = "auto",
    json: options.Json = False,
) -> None:
    """Seconds and joules of single kernels on a device."""
    from hwsim import kernel_spec
    from hwsim.device import load_device
    from hwsim.kernel_ops import SPEC_OPS

    specs, target = _read_specs(ops), load_device(device, calibration=options.calibration_of(calibration))
    try:
        found: list[dict[str, Any]] = kernel_spec.predict(specs, target, kernel_spec.Cache(cache))
    except InputError as error:
        raise InputError(*(replace(problem, file=str(ops)) for problem in error.problems)) from None
    known = target.card.calibration
    if known is not None and known.note:
        say(f"note: {known.note}")
    if json:
        print_json(found)
        return
    columns = ("op", "sizes", "time", "90 % of such", "energy", "moved", "bound by")
    print_table([_row(spec, SPEC_OPS) for spec in found], columns, f"{device}, {cache} cache")


def _row(spec: Mapping[str, Any], ops: Mapping[str, SpecOp]) -> list[str]:
    """A line of the table; ``bytes`` is a size of copies and a result of all others."""
    fields = ops[spec["op"]].fields
    sizes = {key: value for key, value in spec.items() if key in fields or key not in ("op", "bytes", *RESULT)}
    low, high = (shown("seconds", spec[end]) if end in spec else "" for end in ("seconds_low", "seconds_high"))
    return [
        spec["op"],
        ", ".join(f"{key}={value}" for key, value in sizes.items()),
        shown("seconds", spec["seconds"]),
        f"{low} to {high}" if low else "",
        shown("joules", spec["joules"]),
        shown("_bytes", spec["bytes"]),
        spec["bound"],
    ]


def measure(
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="What to time on.")] = "cuda",
    suite: Annotated[list[str] | None, typer.Option(help="all, end_to_end, or an op. Repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="CSV to append to; rows that it holds are not timed again.")] = Path(
        "rows.csv"
    ),
    seconds: Annotated[float, typer.Option(min=0, help="Stop after this long.")] = 500.0,
    seed: Annotated[int, typer.Option(help="Of shapes and data.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many rows.")] = None,
) -> None:
    """Time kernels on this machine into a CSV."""
    from hwsim.registry import load_plugin

    try:
        measure_kernels = cast("Callable[..., int]", load_plugin("hwsim.harnesses", "kernels"))
    except PluginError as error:
        raise InputError(f"measuring needs torch: pip install 'hwsim[torch]' ({error})") from None
    code = measure_kernels(device, suite, out, seconds, seed, limit, progress=say)
    raise typer.Exit(code)


def _read_specs(path: Path) -> list[dict[str, Any]]:
    try:
        data = json_module.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from None
    except json_module.JSONDecodeError as error:
        raise InputError(Problem(f"not JSON: {error.msg}", str(path), error.lineno, error.colno)) from None
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise InputError(Problem(f"not JSON: {error}", str(path))) from None
    if not isinstance(data, list):
        raise InputError(Problem(file=str(path), got=repeated(data), expected="a list of kernels"))
    return data
