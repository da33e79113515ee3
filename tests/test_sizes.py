"""Symbolic sizes evaluate as Python's integers do."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import GraphError
from hwsim.sizes import Size, Tape, combine, from_json, product, symbol, symbols_of, to_json

OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "max": max,
    "min": min,
}
VALUES = {"batch": 3, "prompt": 17}


def bound(size: Size, values: dict[str, int] = VALUES) -> int:
    tape = Tape()
    place = tape.add(size)
    return tape.run(values)[place]


def pairs(depth: int = 4) -> st.SearchStrategy[tuple[Size, int]]:
    """A size with the value that plain arithmetic gives it."""
    leaves = st.one_of(
        st.integers(1, 9).map(lambda n: (n, n)), st.sampled_from(sorted(VALUES)).map(lambda s: (symbol(s), VALUES[s]))
    )

    def joined(children):
        return st.tuples(st.sampled_from(sorted(OPERATIONS)), children, children).map(_combined)

    return st.recursive(leaves, joined, max_leaves=2**depth)


def _combined(parts):
    operation, (left, a), (right, b) = parts
    if operation in ("//", "%") and b == 0:
        operation = "+"
    return combine(operation, left, right), OPERATIONS[operation](a, b)


@given(pairs())
def test_binding_is_plain_arithmetic(pair):
    size, value = pair
    assert bound(size) == value


@given(st.lists(pairs(), max_size=5), st.lists(pairs(), max_size=5))
def test_sizes_share_a_tape(some, others):
    """Whatever else is on it, and however often it has run."""
    tape = Tape()
    expected = [(tape.add(size), value) for size, value in (*some, *others, *some)]
    for values in ({"batch": 5, "prompt": 2}, VALUES):
        with suppress(ZeroDivisionError):
            found = tape.run(values)
    assert [found[place] for place, _ in expected] == [value for _, value in expected]


def test_what_is_computed_alike_is_computed_once():
    tape = Tape()
    assert tape.add(symbol("n") * symbol("m") + 1) == tape.add(symbol("n") * symbol("m") + 1)
    assert tape.add(symbol("n") + symbol("m")) != tape.add(symbol("m") + symbol("n"))


@given(pairs())
def test_json_round_trip(pair):
    size, value = pair
    assert bound(from_json(json.loads(json.dumps(to_json(size))))) == value


def test_known_sizes_stay_ints():
    assert combine("*", 6, 7) == 42
    assert product([2, 3, 4]) == 24
    assert product([]) == 1
    assert product([symbol("n"), 0]) == 0
    assert symbol("n") * 1 is not None and (symbol("n") + 0) == symbol("n")


def test_symbols_and_missing_values():
    size = symbol("batch") * (symbol("past") + 1)
    assert symbols_of(size) == {"batch", "past"}
    with pytest.raises(GraphError, match="past"):
        bound(size, {"batch": 2})


@pytest.mark.parametrize("data", [["exec", "x", 1], ["symbol", 3], "__import__('os')", True, None, [1, 2]])
def test_anything_else_is_refused(data):
    with pytest.raises(GraphError):
        from_json(data)
