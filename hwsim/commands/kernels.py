"""`hwsim predict` and `hwsim measure`: single kernels, simulated and timed."""

from __future__ import annotations

import json as json_module
from collections import Counter
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

KERNELS = "a list of kernels, or one a line"
RESULT = ("seconds", "joules", "bound", "traffic", "seconds_low", "seconds_high")


def predict(
    ops: Annotated[Path, typer.Argument(metavar="OPS.json", help="Kernels: a JSON list, or one a line.")],
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


def _read_specs(path: Path) -> list[Any]:
    """The kernels of a file: a JSON list, or JSON lines."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(path))) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"not UTF-8 text at byte {error.start}", str(path))) from None
    if text.lstrip()[:1] == "{":
        lines = enumerate(text.splitlines(), 1)
        return [_parsed(line, path, number) for number, line in lines if line.strip()]
    if not text.strip():
        raise InputError(Problem("empty", str(path), expected=KERNELS))
    data = _parsed(text, path)
    if not isinstance(data, list):
        raise InputError(Problem(file=str(path), got=repeated(data), expected=KERNELS))
    return data


def _parsed(text: str, path: Path, line: int = 1) -> Any:
    """The data of JSON that begins in ``line`` of its file."""
    try:
        return _DECODER.decode(text)
    except InputError as error:
        raise InputError(*(replace(problem, file=str(path)) for problem in error.problems)) from None
    except json_module.JSONDecodeError as error:
        place = str(path), line + error.lineno - 1, error.colno
        raise InputError(Problem(f"not JSON: {error.msg}", *place, expected=KERNELS)) from None
    except (RecursionError, ValueError) as error:
        raise InputError(Problem(f"not JSON: {error}", str(path), line)) from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, in which no key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        key = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        where = ", ".join(f"{name}: {repeated(value)}" for name, value in pairs)
        raise InputError(Problem(f"'{key}' is given twice in {{{where}}}"))
    return found


_DECODER = json_module.JSONDecoder(object_pairs_hook=_once)
