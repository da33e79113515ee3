"""`hwsim graph`: what a model is made of, without any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands import options
from hwsim.commands.output import print_columns, print_json, records, say, shown

if TYPE_CHECKING:
    from hwsim.graph import Graph

COLUMNS = (
    "kind",
    "source",
    "path",
    "count",
    "shape",
    "dtype",
    "matmul_flops",
    "vector_flops",
    "read_bytes",
    "write_bytes",
)


def graph(
    model: Annotated[str, typer.Argument(help=options.MODEL_HELP)],
    phase: options.Phase = None,
    batch: options.Batch = 1,
    prompt: options.Prompt = 2048,
    dtype: options.Dtype = "bf16",
    dims: options.Dims = None,
    json: options.Json = False,
) -> None:
    """Ops, FLOPs, bytes, parameters and unmodelled ops of MODEL."""
    from hwsim.capture import find_model
    from hwsim.precision import check_precision, in_precision
    from hwsim.simulation import with_optimizer
    from hwsim.workload import Workload

    found = find_model(model, dims=options.sizes(dims))
    asked = phase or ("decode" if "decode" in found.phases else "forward")
    load = Workload(asked, batch, prompt, dtype=check_precision(dtype))
    bound = in_precision(found.capture(asked), dtype).bind(batch=load.batch, prompt=load.prompt)
    _print(with_optimizer(bound) if asked == "train" else bound, asked, json)


def _print(graph: Graph, phase: str, json: bool) -> None:
    totals: dict[str, Any] = {
        "model": graph.name,
        "phase": phase,
        "ops": len(graph.ops),
        "executed": sum(graph.counts),
        "parameters": graph.parameters,
        "matmul_flops": graph.matmul_flops,
        "flops": graph.flops,
        "level": graph.level,
        "unmodelled": list(graph.unmodelled),
    }
    rows = records(graph.to_frame())
    for row in rows:
        row["flops"] = row["matmul_flops"] + row["vector_flops"] + row["special_ops"]
    if json:
        print_json({**totals, "table": rows})
        return
    print_columns([row for row in rows if row["kind"] != "view"], COLUMNS, f"{graph.name} {phase}")
    say(
        f"{totals['ops']} ops, {totals['executed']} executed, {graph.parameters:,} parameters, "
        f"{shown('flops', graph.flops)} of which {shown('flops', graph.matmul_flops)} in products"
    )
    if graph.unmodelled:
        say(f"ops without a formula, charged their bytes only: {', '.join(graph.unmodelled)}")
