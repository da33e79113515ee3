"""`hwsim compare`: models against devices, or one results folder against another."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands import options
from hwsim.commands.output import print_columns, print_json, print_table, records, say, shown
from hwsim.errors import CheckFailed, DoesNotFitError, InputError, Problem, nearest_name

if TYPE_CHECKING:
    import pandas as pd

METRICS = {
    "latency": "latency_s",
    "energy": "energy_j",
    "tokens_per_s": "tokens_per_s",
    "bandwidth": "bandwidth_bytes_per_s",
    "peak_memory": "peak_memory_bytes",
    "traffic": "traffic_bytes",
    "flops": "flops",
}
IDENTITY = ("model", "device", "mapper", "phase", "batch", "prompt", "generate", "dtype", "spill")
FIGURES = ("latency_s", "tokens_per_s", "energy_j", "bandwidth_bytes_per_s", "peak_memory_bytes", "bound")
_RULE = re.compile(r"\s*(\w+)\s*([<>])\s*([+-]?\d+(?:\.\d+)?)\s*%\s*")
_COMPARISONS = {">": operator.gt, "<": operator.lt}


def compare(
    folders: Annotated[
        list[Path] | None, typer.Argument(metavar="[BEFORE AFTER]", help="Two results folders of hwsim run.")
    ] = None,
    model: options.Models = None,
    device: options.Devices = None,
    phase: options.Phase = None,
    batch: options.Batch = 1,
    prompt: options.Prompt = 2048,
    generate: options.Generate = 128,
    dtype: options.Dtype = "bf16",
    mapper: options.Mapper = "auto",
    mapper_set: options.MapperSet = None,
    spill: options.Spill = False,
    fail_if: Annotated[
        list[str] | None, typer.Option("--fail-if", metavar="RULE", help="Exit 1 if it holds for a case: latency>+5%.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Compare models on devices, or two results folders case by case."""
    rules = [parse_rule(text) for text in fail_if or []]
    if folders:
        if len(folders) != 2 or model or device:
            raise typer.BadParameter("give two results folders, or models and devices with --model and --device")
        _compare_folders(folders[0], folders[1], rules, json)
        return
    if rules:
        raise typer.BadParameter("--fail-if compares two results folders")
    question = options.Question(phase, batch, prompt, generate, dtype, mapper, spill, mapper_set)
    _compare_devices(options.pairs(model, device), question, json)


def _compare_devices(pairs: list[tuple[str, str]], question: options.Question, json: bool) -> None:
    """A row per model and device; one that does not work out keeps its reason."""
    rows = []
    for model, device in pairs:
        try:
            rows.append({**question.ask(model, device).summary(), "error": ""})
        except DoesNotFitError as error:
            rows.append({"model": model, "device": device, "error": str(error)})
    if json:
        print_json(rows)
        return
    columns = ["model", "device", "phase", *FIGURES]
    columns += ["error"] if any(row["error"] for row in rows) else []
    print_columns(rows, columns, f"batch {question.batch}, prompt {question.prompt}, {question.dtype}")
    if all(row["error"] for row in rows):
        raise CheckFailed("nothing fits")


@dataclass(frozen=True, slots=True)
class Rule:
    """A change that must not happen: `latency>+5%`."""

    text: str
    column: str
    comparison: str
    change: float

    def holds(self, before: float, after: float) -> bool:
        """Whether the change from ``before`` to ``after`` is beyond the limit."""
        change = (after - before) / before if before else 0.0 if after == before else float("inf")
        return bool(_COMPARISONS[self.comparison](change, self.change))


def parse_rule(text: str) -> Rule:
    """Read a rule such as ``latency>+5%`` or ``tokens_per_s<-2%``."""
    match = _RULE.fullmatch(text)
    if match is None:
        raise typer.BadParameter(f"got '{text}', expected such as latency>+5%", param_hint="--fail-if")
    name, comparison, percent = match.groups()
    if name not in METRICS:
        problem = Problem(f"unknown figure '{name}'", nearest=nearest_name(name, METRICS), expected=", ".join(METRICS))
        raise typer.BadParameter(str(problem), param_hint="--fail-if")
    return Rule(text.strip(), METRICS[name], comparison, float(percent) / 100)


def _compare_folders(before: Path, after: Path, rules: Sequence[Rule], json: bool) -> None:
    """A row per case that both folders hold; broken rules and newly failed cases are a `CheckFailed`."""
    from hwsim.study import read_results

    old, new = (_by_inputs(read_results(folder).cases) for folder in (before, after))
    both = [inputs for inputs in old if inputs in new]
    if not both:
        raise InputError(f"{before} and {after} have no case in common")
    rows = [_changes(old[inputs], new[inputs]) for inputs in both]
    if json:
        print_json(rows)
    else:
        _print_changes(rows)
    for folder, lonely in ((before, len(old) - len(both)), (after, len(new) - len(both))):
        if lonely:
            say(f"{lonely} cases are in {folder} only")
    broken = [line for inputs in both for line in _broken(old[inputs], new[inputs], rules)] if rules else []
    if broken:
        raise CheckFailed("\n".join(broken))


def _by_inputs(cases: pd.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
    return {tuple(row[name] for name in IDENTITY): row for row in records(cases)}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The inputs of a case, its figures before and after, and their ratios."""
    row: dict[str, Any] = {name: new[name] for name in IDENTITY}
    row["status"] = new["status"] if old["status"] == new["status"] else f"{old['status']} -> {new['status']}"
    for name, column in METRICS.items():
        row[f"{name}_before"], row[f"{name}_after"] = old[column], new[column]
        row[f"{name}_ratio"] = new[column] / old[column] if old[column] else None
    return row


def _print_changes(rows: list[dict[str, Any]]) -> None:
    inputs = [name for name in IDENTITY if name in ("model", "device") or len({row[name] for row in rows}) > 1]
    metrics = ("latency", "energy", "peak_memory")
    columns = [*inputs, *(f"{name} {word}" for name in metrics for word in ("before", "after", "change")), "status"]
    cells = []
    for row in rows:
        line = [shown(name, row[name]) for name in inputs]
        for name in metrics:
            ratio = row[f"{name}_ratio"]
            line += [shown(METRICS[name], row[f"{name}_{word}"]) for word in ("before", "after")]
            line.append("" if ratio is None or ratio != ratio else f"{ratio - 1:+.1%}")
        cells.append([*line, row["status"]])
    print_table(cells, columns)


def _broken(old: dict[str, Any], new: dict[str, Any], rules: Sequence[Rule]) -> Iterator[str]:
    """What is worse than the rules allow; a case that worked before must work."""
    case = ", ".join(str(new[name]) for name in IDENTITY[:-1])
    if old["status"] == "ok" and new["status"] != "ok":
        yield f"{case}: failed: {new['error']}"
    if old["status"] != "ok" or new["status"] != "ok":
        return
    for rule in rules:
        before, after = old[rule.column], new[rule.column]
        if before == before and after == after and rule.holds(before, after):
            change = f"{shown(rule.column, before)} -> {shown(rule.column, after)}"
            yield f"{case}: {rule.text}: {change}"
