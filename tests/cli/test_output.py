"""Printing: JSON for programs, whatever the numbers are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hwsim.commands.output import print_json

ENTRIES = [{"a": 1, "b": float("nan")}, {"a": np.float64(2.5), "n": np.int64(3)}, {"c": {"d": (float("inf"), "é")}}]


@pytest.mark.parametrize("data", [ENTRIES, {"all": ENTRIES}, [], [1, "x", None]])
def test_what_json_has_no_number_for_is_null(data, capsys):
    print_json(data)
    plain = [{"a": 1, "b": None}, {"a": 2.5, "n": 3}, {"c": {"d": [None, "é"]}}]
    wanted = {"all": plain} if isinstance(data, dict) else plain if data is ENTRIES else data
    assert json.loads(capsys.readouterr().out) == wanted


def test_a_list_has_one_entry_a_line(capsys):
    print_json(ENTRIES)
    lines = capsys.readouterr().out.splitlines()
    assert [lines[0], lines[-1]] == ["[", "]"] and len(lines) == len(ENTRIES) + 2
