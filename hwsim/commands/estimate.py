"""`hwsim estimate`: one model on one device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands import options
from hwsim.commands.output import print_json, print_table, say, shown

if TYPE_CHECKING:
    from hwsim.result import Result

TOP = 8


def estimate(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP)],
    device: options.Device,
    mapper: options.Mapper = "auto",
    mapper_set: options.MapperSet = None,
    phase: options.Phase = None,
    batch: options.Batch = 1,
    prompt: options.Prompt = 2048,
    generate: options.Generate = 128,
    dtype: options.Dtype = "bf16",
    spill: options.Spill = False,
    dims: options.Dims = None,
    trace: Annotated[str | None, typer.Option(help="Write a timeline for ui.perfetto.dev (.json or .json.gz).")] = None,
    json: options.Json = False,
) -> None:
    """Time, energy and memory of MODEL on one device."""
    from hwsim import simulation

    result = simulation.estimate(
        model,
        device,
        mapper=mapper,
        mapper_options=options.settings(mapper_set),
        phase=phase,
        batch=batch,
        prompt=prompt,
        generate=generate,
        dtype=dtype,
        spill=spill,
        dims=options.sizes(dims),
    )
    if json:
        print_json({**result.summary(), "traffic": dict(result.traffic), "peak": dict(result.peak_by_memory)})
    else:
        _print(result)
    if trace is not None:
        result.to_perfetto(trace)
        say(f"timeline: {trace} (open it in ui.perfetto.dev)")


def _print(result: Result) -> None:
    summary = result.summary()
    load = result.workload
    sizes = f"batch {load.batch}, prompt {load.prompt}, {load.dtype}"
    names = ("latency_s", "tokens_per_s", "energy_j", "bandwidth_bytes_per_s", "peak_memory_bytes", "flops")
    titles = ("latency", "tokens/s", "energy", "bandwidth", "peak memory", "FLOPs")
    facts: list[tuple[str, str]] = [
        (title, shown(name, summary[name]))
        for title, name in zip(titles, names, strict=True)
        if summary[name] is not None
    ]
    if result.interval is not None:
        facts.insert(1, ("90 % within", " to ".join(shown("seconds", bound) for bound in result.interval)))
    if result.analytic is not None:
        below = result.analytic / result.latency - 1 if result.latency else 0.0
        found = f"{shown('seconds', result.analytic)} ({below:+.1%}), {result.analytic_bound}"
        facts.append(("by formulas", found))
    facts.append(("bound by", result.bound))
    if result.mapper_options:
        facts.append(("mapper", result.mapper))
    for memory, nbytes in result.traffic.items():
        peak = shown("_bytes", result.peak_by_memory.get(memory, 0.0))
        facts.append((f"memory {memory}", f"{shown('_bytes', nbytes)} moved, {peak} in use"))
    print_table(facts, ("figure", "value"), f"{result.model} {load.phase} on {result.device}: {sizes}")
    rows = [row for part in result.phases for row in part.rows()]
    print_table(top_kernels(rows, result.latency), TOP_COLUMNS, "Most time")
    for note in result.notes:
        say(f"note: {note}")


TOP_COLUMNS = ("kernel", "where", "launches", "time", "share", "bound by")


def top_kernels(rows: list[dict[str, Any]], latency: float) -> list[list[str]]:
    """The kernels that take most time, those alike joined, for a table of `TOP_COLUMNS`."""
    most = sorted(_joined(rows), key=lambda row: -row["seconds"])[:TOP]
    return [
        [
            row["kernel"],
            row["path"],
            f"{row['launches']:g}",
            shown("seconds", row["seconds"]),
            f"{row['seconds'] / latency:.1%}" if latency else "",
            row["bound"],
        ]
        for row in most
    ]


def _joined(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one phase, place, name and bound as one: sampled decode steps, transfers in parts."""
    joined: dict[tuple[str, str, str, str], dict[str, Any]] = {}
    for row in rows:
        key = row["phase"], row["path"], row["kernel"], row["bound"]
        first = joined.setdefault(key, {**row, "launches": 0, "seconds": 0.0})
        for name in ("launches", "seconds"):
            first[name] += row[name]
    return list(joined.values())
