"""Predicted against measured: how far the device models are from silicon, per family of kernels and end to end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.capture import find_model
from hwsim.card import Card
from hwsim.device import Device
from hwsim.errors import HwsimError
from hwsim.kernel_spec import Cache, predict
from hwsim.measurements import Measurement, Measurements
from hwsim.result import Result
from hwsim.simulation import Simulation, load_mapper
from hwsim.units import format_seconds
from hwsim.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

FAMILIES: Mapping[str, str] = {
    "matmul": "matmul",
    "attention_prefill": "attention",
    "attention_decode": "attention",
    "conv2d": "convolution",
    **dict.fromkeys(("softmax", "layernorm", "rmsnorm", "sum", "cumsum"), "norm, softmax, reduction"),
    **dict.fromkeys(("gelu", "silu", "add", "mul"), "elementwise"),
    **dict.fromkeys(("embedding", "gather_rows"), "embedding, gather"),
    "transpose_copy": "transpose",
    **dict.fromkeys(("copy_h2d_pinned", "copy_d2h_pinned", "copy_d2d", "copy_peer"), "copy"),
    **dict.fromkeys(("all_reduce", "all_gather", "reduce_scatter", "all_to_all"), "collective"),
    "model": "end to end",
}
MAPPER_OF_MODE = {"eager": "eager", "graph": "recorded", "compiled": "fused"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measured quantity of one row and its predictions; ``quantity`` is seconds or joules."""

    family: str
    op: str
    case: str
    cache: str
    quantity: str
    measured: float
    predicted: float
    roofline: float
    bound: str


def compare_measurements(measurements: Measurements, device: Device, roofline: Device) -> list[Comparison]:
    """Every measured time and energy of ``measurements`` against ``device`` and against a plain ``roofline``.

    Rows that a device cannot predict (a format it lacks) are left out; `uncovered` lists them.
    """
    kernels = [row for row in measurements.rows if row.op != "model"]
    found: list[Comparison] = []
    for cache in Cache:
        found += _kernel_comparisons(kernels, device, roofline, cache)
    return found + [
        c for row in measurements.rows if row.op == "model" for c in _model_comparisons(row, device, roofline)
    ]


def _kernel_comparisons(
    rows: Sequence[Measurement], device: Device, roofline: Device, cache: Cache
) -> list[Comparison]:
    found = []
    for row in rows:
        seconds = row.seconds_cold if cache is Cache.COLD else row.seconds_warm
        try:
            (ours,), (roof,) = predict([row.spec], device, cache), predict([row.spec], roofline, cache)
        except HwsimError:
            continue
        if seconds is not None:
            found.append(_comparison(row, cache, "seconds", seconds, ours, roof))
        if cache is Cache.WARM and row.joules_warm is not None:
            found.append(_comparison(row, cache, "joules", row.joules_warm, ours, roof))
    return found


def _comparison(
    row: Measurement, cache: str, quantity: str, measured: float, ours: Mapping[str, Any], roof: Mapping[str, Any]
) -> Comparison:
    case = " ".join(f"{name}={value}" for name, value in row.spec.items() if name != "op")
    family = FAMILIES.get(row.op, row.op)
    return Comparison(
        family, row.op, case, str(cache), quantity, measured, ours[quantity], roof[quantity], str(ours["bound"])
    )


def _model_comparisons(row: Measurement, device: Device, roofline: Device) -> list[Comparison]:
    spec = row.spec
    try:
        ours, roof = (_summary(_simulated(spec, chosen)) for chosen in (device, roofline))
    except HwsimError:
        return []
    pairs = (("seconds", row.seconds_warm), ("joules", row.joules_warm))
    mode = str(spec.get("mode", "graph"))
    return [
        _comparison(row, mode, quantity, measured, ours, roof) for quantity, measured in pairs if measured is not None
    ]


def _simulated(spec: Mapping[str, Any], device: Device) -> Result:
    workload = Workload(str(spec["phase"]), int(spec["batch"]), int(spec["prompt"]))
    mapper = load_mapper(MAPPER_OF_MODE.get(str(spec.get("mode")), "recorded"))
    return Simulation(find_model(str(spec["model"])), device, mapper, workload, spans=False).run()


def _summary(result: Result) -> dict[str, Any]:
    return {"seconds": result.latency, "joules": result.energy, "bound": result.bound}


def uncovered(measurements: Measurements, comparisons: Sequence[Comparison]) -> Mapping[str, int]:
    """How many measured rows of each op have no prediction."""
    rows, seen = (
        _counts(row.op for row in measurements.rows),
        _counts({(c.op, c.case): c.op for c in comparisons}.values()),
    )
    return {op: count - seen.get(op, 0) for op, count in rows.items() if count > seen.get(op, 0)}


def _counts(names: Any) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def to_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row per comparison, with ``error`` = |predicted/measured - 1|, for the device model and the roofline."""
    import pandas as pd

    frame = pd.DataFrame(comparisons)
    for model in ("predicted", "roofline"):
        frame[f"{model}_error"] = (frame[model] / frame["measured"] - 1).abs()
    return frame


def error_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """MAPE, median and worst error by quantity, family and cache, for the device model and for the plain roofline."""
    frame = to_frame(comparisons)
    columns: dict[str, tuple[str, str | Callable[[Any], Any]]] = {"rows": ("measured", "size")}
    for model, short in (("predicted", "model"), ("roofline", "roofline")):
        columns |= {
            f"{short}_mape": (f"{model}_error", "mean"),
            f"{short}_median": (f"{model}_error", "median"),
            f"{short}_worst": (f"{model}_error", "max"),
        }
    return frame.groupby(["quantity", "family", "cache"], sort=True).agg(**columns).reset_index()


def worst_rows(comparisons: Sequence[Comparison], count: int = 10) -> list[Comparison]:
    """The comparisons that are furthest off in the logarithm of the ratio."""
    return sorted(comparisons, key=lambda c: -abs(np.log(c.predicted / c.measured)))[:count]


def accuracy_page(measurements: Sequence[Measurements], tables: Mapping[str, pd.DataFrame], card: Card) -> str:
    """docs/accuracy.md: what was measured, how, and the error tables as they came out."""
    names = " ".join(found.name for found in measurements)
    lines = [
        "# Accuracy",
        "",
        f"Predictions of the card `{card.name}` against measurements of the device, as they came out. The model's",
        "constants are from the datasheet and public microbenchmarks, none from the rows below: nothing is fitted.",
        "The plain roofline (peak rate and peak bandwidth of the same card) stands beside it.",
        "",
        "MAPE is the mean absolute percentage error of a row, |predicted/measured - 1|. `cold`: caches flushed, one",
        "launch; `warm`: replayed back to back in a CUDA graph; `eager` and `graph`: whole models, launched op by op",
        "or replayed.",
        "",
        f"Made by `hwsim validate {names} --device {card.name} --write docs/accuracy.md`.",
    ]
    for found in measurements:
        lines += ["", f"## {found.name}", "", f"{len(found.rows)} rows in `kernels/measurements/{found.name}.csv`.", ""]
        lines += [f"- {line}" for line in dict.fromkeys(found.header)]
        lines += ["", *_markdown(tables[found.name])]
    return "\n".join(lines) + "\n"


def _markdown(table: pd.DataFrame) -> list[str]:
    head = "| quantity | family | cache or mode | rows | model MAPE | median | worst | roofline MAPE | median | worst |"
    lines = [head, "|---|---|---|---:|---:|---:|---:|---:|---:|---:|"]
    for row in table.to_dict("records"):
        errors = [
            f"{row[f'{model}_{figure}']:.1%}"
            for model in ("model", "roofline")
            for figure in ("mape", "median", "worst")
        ]
        lines.append(f"| {row['quantity']} | {row['family']} | {row['cache']} | {row['rows']} | {' | '.join(errors)} |")
    return lines


def explained(comparison: Comparison) -> str:
    """One line on a row that is far off: what the model thought was binding."""
    ratio = comparison.predicted / comparison.measured
    measured = (
        format_seconds(comparison.measured) if comparison.quantity == "seconds" else f"{comparison.measured:.3g} J"
    )
    where = f"{comparison.op} {comparison.case} ({comparison.cache})"
    return f"{where}: measured {measured}, predicted {ratio:.2g}x, thought bound by {comparison.bound}"
