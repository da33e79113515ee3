"""Claims: the papers' published figures against simulated ones. A claim that does not reproduce stays in the table."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from hwsim.capture import find_model
from hwsim.claim_cases import ClaimCase, find_measure, measured, run_case
from hwsim.errors import HwsimError, InputError, Problem, UnknownNameError, lookup
from hwsim.graph import Graph, Role
from hwsim.registry import data_files
from hwsim.units import parse
from hwsim.yamlfile import load_yaml, validate


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Source(_Strict):
    paper: str
    where: str
    mark: Literal["published", "derived"]


class MeasuredCase(_Strict):
    """A simulated case as an input of an expression: `{case: {...}, measure: latency}`."""

    case: ClaimCase
    measure: str

    @model_validator(mode="after")
    def _complete(self) -> MeasuredCase:
        _check_case(self.case, self.measure)
        return self


def _check_case(case: ClaimCase, measure: str) -> None:
    find_measure(measure)
    if case.model is None or case.system is None:
        raise ValueError("a case needs a model and a system")


def _input_form(given: object) -> str:
    return "case" if isinstance(given, dict | MeasuredCase) else "number"


_Input: TypeAlias = Annotated[
    Annotated[float, Tag("number")] | Annotated[MeasuredCase, Tag("case")], Discriminator(_input_form)
]


class FigureFile(_Strict):
    """One published number and how to compute it: an ``expression`` over ``inputs``, a model's ``measure``, or the
    ``measure`` of a simulated ``case``, relative to that of a second one where it has ``over``."""

    name: str
    published: str | float
    tolerance: str | float = 0.0
    quantity: str = ""
    expression: str | None = None
    inputs: dict[str, _Input] = Field(default_factory=dict)
    model: str | None = None
    measure: str | None = None
    config: dict[str, Any] = Field(default_factory=dict)
    tokens: int = Field(default=1024, ge=1)
    phase: str = "prefill"
    case: ClaimCase | None = None
    over: ClaimCase | None = None
    note: str = ""

    @model_validator(mode="after")
    def _one_way(self) -> FigureFile:
        ways = [self.expression is not None, self.model is not None, self.case is not None]
        if sum(ways) > 1 or (self.measure is not None) != any(ways[1:]):
            raise ValueError("a figure has an expression, or a model with a measure, or a case with a measure")
        if self.over is not None and self.case is None:
            raise ValueError("over is the second case of a ratio, the first one is missing")
        if self.measure is not None and self.model is not None:
            lookup("measure", self.measure, MEASURES)
        if self.measure is not None and self.case is not None:
            _check_case(self.case, self.measure)
        parse(self.published, self.unit)
        parse(self.tolerance, "1")
        return self

    @property
    def simulated(self) -> bool:
        """Whether there is a way to compute it."""
        return (self.expression, self.model, self.case) != (None, None, None)

    @property
    def second(self) -> ClaimCase:
        """The case that the first one is divided by."""
        assert self.case is not None and self.over is not None
        return self.case.changed(self.over)

    @property
    def unit(self) -> str:
        """The SI unit of the published and the simulated value."""
        measured_case = self.case is not None and self.over is None and self.measure is not None
        usual = find_measure(self.measure).unit if measured_case and self.measure is not None else "1"
        return self.quantity or usual


class ClaimFile(_Strict):
    """A published statement with its figures; ``fitted`` names the rows or constants that a fit has seen."""

    id: str
    title: str
    kind: Literal["exact", "timing", "fitted", "assumption", "quality"]
    source: _Source
    figures: list[FigureFile] = Field(default_factory=list)
    fitted: list[str] = Field(default_factory=list)
    note: str = ""

    @model_validator(mode="after")
    def _honest(self) -> ClaimFile:
        if (self.kind == "fitted") != bool(self.fitted):
            raise ValueError("a claim of the kind fitted, and no other, says under 'fitted' what was fitted")
        wrong = [one.name for one in self.figures if one.simulated == (self.kind == "quality")]
        if wrong:
            raise ValueError(f"'{wrong[0]}': figures of the kind quality are listed only, all others are computed")
        loose = [one.name for one in self.figures if one.simulated and "tolerance" not in one.model_fields_set]
        if loose:
            raise ValueError(f"'{loose[0]}' needs a tolerance")
        return self


class _ClaimsFile(_Strict):
    claims: list[ClaimFile]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A published figure and ours, in SI units. ``error`` says why there is no simulated value; ``remark`` is the note
    of the figure, ``note`` that of the claim; ``fitted`` names what a fit has seen."""

    claim: str
    title: str
    kind: str
    figure: str
    quantity: str
    published: float
    simulated: float | None
    tolerance: float
    source: str
    mark: str
    note: str
    error: str = ""
    remark: str = ""
    fitted: tuple[str, ...] = ()

    @property
    def ratio(self) -> float | None:
        """Simulated over published."""
        return None if self.simulated is None or not self.published else self.simulated / self.published

    @property
    def holds(self) -> bool | None:
        """Whether the simulated value lies within the tolerance; None of what no simulation can tell."""
        if self.kind == "quality":
            return None
        if self.simulated is None:
            return False
        return abs(self.simulated - self.published) <= self.tolerance * abs(self.published) * (1 + 1e-12)


def read_claims(files: Iterable[Traversable | Path] | None = None) -> dict[str, ClaimFile]:
    """All claims by id, from ``files`` or those that ship with hwsim."""
    claims: dict[str, ClaimFile] = {}
    for file in files if files is not None else data_files("hwsim.studies", "claims").values():
        data, marks = load_yaml(file)
        for claim in validate(_ClaimsFile, data, marks, str(file)).claims:
            if claim.id in claims:
                raise InputError(Problem(f"claim '{claim.id}' is there twice", str(file)))
            claims[claim.id] = claim
    return {name: claims[name] for name in sorted(claims, key=_by_number)}


def _by_number(name: str) -> list[tuple[str, int]]:
    """What sorts ids as people count: IN2 before IN10."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def check_claims(
    ids: Iterable[str] = (),
    claims: Mapping[str, ClaimFile] | None = None,
    listener: Callable[[str, float], None] = lambda doing, part: None,
) -> list[Outcome]:
    """Every figure of the named claims (default: all) against its simulated value.

    What is no id names all that continue it: ``LF6`` is ``LF6-CPU`` and ``LF6-IO``, ``LF`` is ``LF1`` to ``LF10``
    too. The ``listener`` hears which claim is next and what share of the figures is done.
    """
    known = read_claims() if claims is None else claims
    chosen = [claim for name in ids for claim in _named(name, known)] or list(known)
    wanted = [(known[name], figure) for name in dict.fromkeys(chosen) for figure in known[name].figures]
    outcomes = []
    for index, (claim, figure) in enumerate(wanted):
        listener(claim.id, index / len(wanted))
        outcomes.append(_outcome(claim, figure))
    return outcomes


def _named(name: str, known: Mapping[str, ClaimFile]) -> list[str]:
    """The claim of that id; where there is none, those whose id continues it, but neither its number nor its word."""
    word = r"\d" if name[-1:].isdigit() else r"[^\W\d_]"
    continued = re.compile(rf"{re.escape(name)}(?!{word}).")
    found = [name] if name in known else [claim for claim in known if name and continued.match(claim)]
    if not found:
        raise UnknownNameError("claim", name, known)
    return found


def _outcome(claim: ClaimFile, figure: FigureFile) -> Outcome:
    simulated, error = None, ""
    try:
        simulated = _simulated(figure)
    except HwsimError as failure:
        error = str(failure)
    return Outcome(
        claim.id,
        claim.title,
        claim.kind,
        figure.name,
        figure.unit,
        parse(figure.published, figure.unit),
        simulated,
        parse(figure.tolerance, "1"),
        f"{claim.source.paper}, {claim.source.where}",
        claim.source.mark,
        claim.note,
        error,
        figure.note,
        tuple(claim.fitted),
    )


def _simulated(figure: FigureFile) -> float | None:
    if figure.expression is not None:
        return calculate(figure.expression, {name: _given(value) for name, value in figure.inputs.items()})
    if figure.case is not None and figure.measure is not None:
        value = measured(run_case(figure.case), figure.measure)
        if figure.over is None:
            return value
        return calculate("value / over", {"value": value, "over": measured(run_case(figure.second), figure.measure)})
    if figure.model is not None and figure.measure is not None:
        model = find_model(figure.model, figure.config)
        return MEASURES[figure.measure](figure, lambda phase, tokens: model.capture(phase).bind(batch=1, prompt=tokens))
    return None


def _given(value: float | MeasuredCase) -> float:
    return measured(run_case(value.case), value.measure) if isinstance(value, MeasuredCase) else value


Bound = Callable[[str, int], Graph]


def _state_bytes(figure: FigureFile, graph: Bound) -> float:
    return graph("prefill", figure.tokens).bytes_of(Role.STATE)


def _kv_bytes_per_token(figure: FigureFile, graph: Bound) -> float:
    return graph("prefill", figure.tokens + 1).bytes_of(Role.STATE) - graph("prefill", figure.tokens).bytes_of(
        Role.STATE
    )


def _state_floats(figure: FigureFile, graph: Bound) -> float:
    sizes = [tensor.numel for tensor in graph("prefill", figure.tokens).of_role(Role.STATE)]
    return float(max(size for size in sizes if isinstance(size, int)))


MEASURES: Mapping[str, Callable[[FigureFile, Bound], float]] = {
    "parameters": lambda figure, graph: float(graph(figure.phase, figure.tokens).parameters),
    "state_bytes": _state_bytes,
    "kv_bytes_per_token": _kv_bytes_per_token,
    "state_floats_per_layer": _state_floats,
    "matmul_flops": lambda figure, graph: graph(figure.phase, figure.tokens).matmul_flops,
}

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Pow: lambda a, b: a**b,
}
MAX_EXPONENT = 64


def calculate(expression: str, inputs: Mapping[str, float]) -> float:
    """The value of an arithmetic ``expression`` over named ``inputs``; its syntax tree is walked, never executed."""
    try:
        tree = ast.parse(" ".join(expression.split()), mode="eval")
        return float(_value(tree.body, inputs))
    except SyntaxError as error:
        raise InputError(f"expression '{expression}': {error.msg}") from None
    except (ZeroDivisionError, OverflowError) as error:
        raise InputError(f"expression '{expression}': {error}") from None


def _value(node: ast.expr, inputs: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name):
            if name not in inputs:
                raise UnknownNameError("input", name, inputs)
            return inputs[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, inputs)
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            a, b = _value(left, inputs), _value(right, inputs)
            if isinstance(operator, ast.Pow) and abs(b) > MAX_EXPONENT:
                raise InputError(f"exponent {b} in an expression; at most {MAX_EXPONENT}")
            return _OPERATORS[type(operator)](a, b)
    raise InputError(f"'{ast.unparse(node)}' in an expression; only + - * / // **, names and numbers are allowed")
