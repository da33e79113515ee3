"""Quantities with units: every expected value is arithmetic that the reader can redo."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hwsim.errors import UnitError
from hwsim.units import format_quantity, format_seconds, parse, parse_count

UNITS = ["B", "B/s", "s", "FLOP", "FLOP/s", "Hz", "1/s", "W", "J", "J/B", "J/FLOP", "V", "S", "m", "1"]


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("3.35 TB/s", "B/s", 3.35e12),
        ("3.35TB/s", "B/s", 3.35e12),
        ("400 Gbit/s", "B/s", 50e9),
        ("80 GB", "B", 80e9),
        ("80 GiB", "B", 80 * 2**30),
        ("64 KB", "B", 64e3),
        ("64 kB", "B", 64e3),
        ("64 KiB", "B", 65536),
        ("16 bit", "B", 2),
        ("1e3 B", "B", 1e3),
        ("1.5 µs", "s", 1.5e-6),
        ("1.5 μs", "s", 1.5e-6),
        ("1.5 us", "s", 1.5e-6),
        ("2 min", "s", 120),
        ("5 m", "m", 5),
        ("5 mm", "m", 5e-3),
        ("989 TFLOPS", "FLOP/s", 989e12),
        ("100 TOPS", "FLOP/s", 100e12),
        ("1 TMAC/s", "FLOP/s", 2e12),
        ("1.98 GHz", "Hz", 1.98e9),
        ("1500 kIOPS", "1/s", 1.5e6),
        ("40/s", "1/s", 40),
        ("50 mW", "W", 0.05),
        ("4 pJ/bit", "J/B", 32e-12),
        ("1 pJ/MAC", "J/FLOP", 0.5e-12),
        ("85 %", "1", 0.85),
        (".5", "1", 0.5),
        (3, "1", 3),
        (0, "B/s", 0),
        ("0", "s", 0),
    ],
)
def test_parse(text: str | float, unit: str, value: float) -> None:
    assert parse(text, unit) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("3.35 TBs", "B/s"),
        ("3.35 GB", "B/s"),
        ("3 gb", "B"),
        ("3 mB", "B"),
        ("3", "B"),
        (3.0, "B"),
        ("12k", "1"),
        ("nan", "1"),
        ("inf s", "s"),
        (math.inf, "1"),
        (math.nan, "1"),
        ("1e999 B", "B"),
        ("-1 s", "s"),
        ("", "s"),
        ("GB", "B"),
        ("1 2 B", "B"),
        ("1_000 B", "B"),
        ("٣ B", "B"),
        (True, "1"),
        (None, "1"),
        ([], "1"),
    ],
)
def test_parse_refuses(text: str, unit: str) -> None:
    with pytest.raises(UnitError, match="such as '"):
        parse(text, unit)


def test_a_refusal_names_the_units_that_would_be_valid() -> None:
    with pytest.raises(UnitError, match=r"unknown unit 'TBs'.*'3.35 TB/s' \(units B/s, bit/s, prefixes k M G"):
        parse("3.35 TBs", "B/s")


def test_negative_values_on_request() -> None:
    assert parse("-2 ms", "s", negative=True) == -2e-3


@pytest.mark.parametrize(
    ("text", "count"),
    [("2k", 2048), ("32K", 32768), ("1M", 1048576), ("1.5k", 1536), (" 7 ", 7), (8, 8), (0, 0)],
)
def test_parse_count(text: str | int, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", -1, "1.3", "2kB", "1e3", True, None, 2.0, "1.0001k"])
def test_parse_count_refuses(text: str) -> None:
    with pytest.raises(UnitError, match="not a count"):
        parse_count(text)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (3.35e12, "B/s", "3.35 TB/s"),
        (999.96e9, "B", "1 TB"),
        (999.94e9, "B", "999.9 GB"),
        (80 * 2**30, "B", "85.9 GB"),
        (0, "B", "0 B"),
        (0.5, "B", "0.5 B"),
        (-2.5e-3, "s", "-2.5 ms"),
        (3.12e-11, "J/B", "31.2 pJ/B"),
        (1.5e6, "1/s", "1.5 M/s"),
        (1, "1/s", "1 /s"),
        (12345.678, "1", "1.235e+04"),
        (math.nan, "s", "nan s"),
        (math.inf, "s", "inf s"),
    ],
)
def test_format(value: float, unit: str, text: str) -> None:
    assert format_quantity(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.5e-6, "1.5 µs"),
        (119.0, "119 s"),
        (125.0, "2 min 05 s"),
        (3 * 3600 + 60, "3 h 01 min"),
        (-125.0, "-2 min 05 s"),
        (math.nan, "nan s"),
        (math.inf, "inf s"),
    ],
)
def test_format_seconds(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@given(st.sampled_from(UNITS), st.floats(1e-21, 1e21))
@example("1/s", 1.0)
def test_what_is_formatted_parses_back_to_four_digits(unit: str, value: float) -> None:
    assert parse(format_quantity(value, unit), unit) == pytest.approx(value, rel=5.01e-4)


@given(st.text(max_size=20), st.sampled_from(UNITS))
def test_any_text_parses_to_a_finite_number_or_is_refused(text: str, unit: str) -> None:
    try:
        value = parse(text, unit)
    except UnitError:
        return
    assert math.isfinite(value)
    assert value >= 0
