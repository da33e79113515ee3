"""The error tree: exit codes, texts, and the way back from a worker process."""

import pickle

import pytest

from hwsim import errors
from hwsim.errors import DoesNotFitError, HwsimError, InputError, Problem, UnknownNameError


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.HwsimError, 2),
        (errors.InputError, 2),
        (errors.UnknownNameError, 2),
        (errors.UnsupportedOpError, 2),
        (errors.DoesNotFitError, 2),
        (errors.CheckFailed, 1),
        (errors.PartialFailure, 3),
    ],
)
def test_exit_codes_are_those_of_the_command_line(kind: type[HwsimError], code: int) -> None:
    assert kind.exit_code == code


def test_the_docstring_draws_every_error() -> None:
    tree = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HwsimError)]
    assert tree
    for kind in tree:
        assert kind.__name__ in (errors.__doc__ or "")


def test_a_problem_says_place_path_got_expected_and_nearest() -> None:
    problem = Problem("unknown key", "a.yaml", 4, 51, "devices[0].bandwith", "'x'", "a text", "bandwidth")
    assert str(problem) == (
        "a.yaml:4:51: devices[0].bandwith: unknown key; got 'x', expected a text; did you mean 'bandwidth'?"
    )
    assert str(Problem("only a message")) == "only a message"
    assert str(Problem(file="a.yaml", got="3")) == "a.yaml: got 3"


def test_all_problems_of_a_file_are_told_at_once() -> None:
    error = InputError(Problem("one", "a.yaml", 1, 2), "two")
    assert str(error) == "a.yaml:1:2: one\ntwo"
    assert len(error.problems) == 2
    assert isinstance(error, ValueError)


def test_unknown_names_come_with_the_nearest_or_the_known_ones() -> None:
    assert str(UnknownNameError("device", "H20", ["h200", "a100"])) == ("unknown device 'H20'; did you mean 'h200'?")
    assert "expected one of: a100, h200" in str(UnknownNameError("device", "zzz", ["h200", "a100"]))
    many = str(UnknownNameError("device", "zzz", [f"n{i:02}" for i in range(50)]))
    assert many.endswith("n11, ...")
    assert str(UnknownNameError("device", "zzz", [])) == "unknown device 'zzz'"


def test_lookup_finds_or_names_the_nearest() -> None:
    assert errors.lookup("mapper", "eager", {"eager": 1}) == 1
    with pytest.raises(UnknownNameError, match="did you mean 'eager'"):
        errors.lookup("mapper", "eagre", {"eager": 1})


def test_not_fitting_says_what_how_much_and_where() -> None:
    error = DoesNotFitError("weights", 140e9, 80e9, "hbm")
    assert str(error) == "weights does not fit in hbm: needs 140 GB, has 80 GB (60 GB short)"
    assert error.needed_bytes == 140e9


@pytest.mark.parametrize(
    "error",
    [
        UnknownNameError("device", "x", ["y"]),
        DoesNotFitError("weights", 2, 1, "hbm"),
        InputError(Problem("m", "f", 1, 1), "n"),
    ],
)
def test_errors_cross_process_borders(error: HwsimError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_values_are_shown_short() -> None:
    assert [errors.shown(v) for v in (None, True, {}, [], "a")] == [
        "null",
        "true",
        "a mapping",
        "a list",
        "'a'",
    ]
    assert len(errors.shown("x" * 1000)) == 60
