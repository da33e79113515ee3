"""Symbolic sizes evaluate as Python's integers do."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.errors import GraphError
from hwsim.sizes import Binder, Size, combine, from_json, product, symbol, symbols_of, to_json

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
    assert Binder(VALUES)(size) == value


@given(pairs())
def test_json_round_trip(pair):
    size, value = pair
    assert Binder(VALUES)(from_json(json.loads(json.dumps(to_json(size))))) == value


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
        Binder({"batch": 2})(size)


@pytest.mark.parametrize("data", [["exec", "x", 1], ["symbol", 3], "__import__('os')", True, None, [1, 2]])
def test_anything_else_is_refused(data):
    with pytest.raises(GraphError):
        from_json(data)
