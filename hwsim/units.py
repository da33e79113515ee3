"""Quantities with units, as they stand in YAML files and reports. Inside the code everything is an SI float.

A quantity is named by its SI unit: "B" (bytes), "B/s", "s", "FLOP", "FLOP/s", "Hz", "1/s", "W", "J", "J/B",
"J/FLOP", "V", "A", "S" (conductance), "m" and "1" (a plain number or a percentage). Decimal prefixes are powers of
1000 (GB = 1e9 bytes), binary ones powers of 1024 (GiB = 2^30 bytes); capitals matter, except that KB is kB.
"""

import math
import re
from dataclasses import dataclass

from hwsim.errors import Problem, UnitError, shown

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d].*)?", re.ASCII)
_COUNT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMG]?)\s*", re.ASCII)
_COUNT_SUFFIX = {"": 1, "k": 2**10, "K": 2**10, "M": 2**20, "G": 2**30}

_LARGE = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_SMALL = {"m": 1e-3, "µ": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15, "a": 1e-18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_SPELLINGS = {"K": "k", "u": "µ", "\u03bc": "µ"}  # the micro sign is U+00B5, the Greek letter U+03BC


@dataclass(frozen=True, slots=True)
class _Quantity:
    """How one quantity is written: an example, its units with their size in the SI unit, their prefixes."""

    example: str
    units: dict[str, float]
    prefixes: dict[str, float]


_QUANTITIES = {
    "B": _Quantity("80 GB", {"B": 1, "bit": 1 / 8}, _LARGE | _BINARY),
    "B/s": _Quantity("3.35 TB/s", {"B/s": 1, "bit/s": 1 / 8}, _LARGE | _BINARY),
    "s": _Quantity("450 ns", {"s": 1, "min": 60, "h": 3600}, _SMALL),
    "FLOP": _Quantity("1 GFLOP", {"FLOP": 1, "OP": 1, "MAC": 2}, _LARGE),
    "FLOP/s": _Quantity(
        "989 TFLOP/s", {"FLOP/s": 1, "FLOPS": 1, "FLOPs/s": 1, "OP/s": 1, "OPS": 1, "MAC/s": 2}, _LARGE
    ),
    "Hz": _Quantity("1.98 GHz", {"Hz": 1}, _LARGE),
    "1/s": _Quantity("1500 kIOPS", {"/s": 1, "IOPS": 1}, _LARGE),
    "W": _Quantity("700 W", {"W": 1}, _LARGE | _SMALL),
    "J": _Quantity("1.2 nJ", {"J": 1}, _LARGE | _SMALL),
    "J/B": _Quantity("3.9 pJ/bit", {"J/B": 1, "J/bit": 8}, _SMALL),
    "J/FLOP": _Quantity("0.5 pJ/FLOP", {"J/FLOP": 1, "J/OP": 1, "J/MAC": 0.5}, _SMALL),
    "V": _Quantity("0.9 V", {"V": 1}, _SMALL),
    "A": _Quantity("57 mA", {"A": 1}, _SMALL),
    "S": _Quantity("50 µS", {"S": 1}, _SMALL),
    "m": _Quantity("40 nm", {"m": 1}, _SMALL),
    "1": _Quantity("0.85", {"": 1, "%": 0.01}, {}),
}


def parse(value: str | float, unit: str, *, negative: bool = False) -> float:
    """Read a quantity such as "3.35 TB/s" and return it in the SI unit named by `unit`.

    A number without a unit is taken only for "1", or where it is 0. Negative values need `negative=True`.
    """
    quantity = _QUANTITIES[unit]
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _unreadable(value, "not a quantity", quantity)
    match = _NUMBER.fullmatch(str(value))
    if not match:
        raise _unreadable(value, "not a quantity", quantity)
    number, suffix = float(match[1]), (match[2] or "").strip()
    if not suffix and number and unit != "1":
        raise _unreadable(value, "a number without a unit", quantity)
    result = number * (_scale(suffix, quantity, value) if suffix else 1.0)
    if not math.isfinite(result):
        raise _unreadable(value, "not a finite quantity", quantity)
    if result < 0 and not negative:
        raise _unreadable(value, "must not be negative", quantity)
    return result


def _scale(suffix: str, quantity: _Quantity, value: object) -> float:
    """SI units per one `suffix`, such as 1e12 for TB/s."""
    for spelling, size in quantity.units.items():
        if spelling and suffix.endswith(spelling):
            prefix = suffix.removesuffix(spelling)
            prefix = _SPELLINGS.get(prefix, prefix)
            if not prefix or prefix in quantity.prefixes:
                return quantity.prefixes.get(prefix, 1.0) * size
    raise _unreadable(value, f"unknown unit '{suffix}'", quantity)


def _unreadable(value: object, message: str, quantity: _Quantity) -> UnitError:
    prefixes = f", prefixes {' '.join(quantity.prefixes)}" if quantity.prefixes else ""
    units = ", ".join(filter(None, quantity.units))
    expected = f"such as '{quantity.example}' (units {units}{prefixes})"
    return UnitError(Problem(message, got=shown(value), expected=expected))


def parse_count(value: str | int) -> int:
    """Read a count of tokens, rows or bytes per page: 8, "8", "2k".

    The suffixes k, M and G are powers of 1024, because that is what people mean by a 2k (2048 token) context.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _COUNT.fullmatch(value) if isinstance(value, str) else None
    count = float(match[1]) * _COUNT_SUFFIX[match[2]] if match else math.nan
    if not count.is_integer():
        raise UnitError(Problem("not a count", got=shown(value), expected="such as 512 or '2k' (= 2048)"))
    return int(count)


def format_quantity(value: float, unit: str, digits: int = 4) -> str:
    """Write an SI value with a few significant digits and a decimal prefix: 3.35e12 B/s is "3.35 TB/s"."""
    if unit == "1":
        return f"{value:.{digits}g}"
    if not math.isfinite(value):
        return f"{value} {unit}"
    rounded = float(f"{value:.{digits}g}")
    written = {"": 1.0} | {p: scale for p, scale in _QUANTITIES[unit].prefixes.items() if p not in _BINARY}
    smallest = min(written, key=written.__getitem__) if rounded else ""
    fitting = [prefix for prefix, scale in written.items() if abs(rounded) >= scale]
    prefix = max(fitting, key=written.__getitem__, default=smallest)
    return f"{rounded / written[prefix]:.{digits}g} {prefix}{next(iter(_QUANTITIES[unit].units))}"


def format_seconds(seconds: float) -> str:
    """Write a duration: "1.234 ms" with a prefix below two minutes, "2 h 05 min" in clock units above."""
    if not abs(seconds) >= 120 or math.isinf(seconds):
        return format_quantity(seconds, "s")
    minutes, rest = divmod(round(abs(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    sign = "-" if seconds < 0 else ""
    return f"{sign}{hours} h {minutes:02} min" if hours else f"{sign}{minutes} min {rest:02} s"
