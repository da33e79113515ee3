"""Predicted against measured: how far the device models are from silicon, per family of kernels and end to end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hwsim.card import Card, Spread
from hwsim.cost import Cost
from hwsim.device import Device, estimate_all, load_device, plain_roofline
from hwsim.kernel_family import END_TO_END
from hwsim.measured_kernels import MODEL, QUANTITIES, MeasuredKernels, measured_kernels
from hwsim.measured_models import EAGER, measured_result
from hwsim.measurements import Measurement, Measurements, split_rows
from hwsim.ranking import RankOrder, rank_order, task_of
from hwsim.units import format_seconds

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.residual import Residual

MODELS = ("predicted", "residual", "datasheet", "roofline")
"""The columns of predictions, best first: the calibrated device, with the learned correction, from the card alone, and
peak rate and peak bandwidth alone."""

RANKED = ("predicted", "datasheet")  # those of `MODELS` whose order of competing kernels is scored


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measured quantity of one row, what each of `MODELS` says of it (nan: nothing), and the interval in which 90 %
    of such rows should lie (nan where this row made it). ``quantity`` is seconds or joules; ``unseen``: no constant was
    fitted to this row; ``flops`` and ``nbytes`` are a kernel's work, ``task`` what it computes."""

    family: str
    op: str
    case: str
    cache: str
    quantity: str
    measured: float
    predicted: float
    datasheet: float
    roofline: float
    bound: str
    residual: float = nan
    low: float = nan
    high: float = nan
    unseen: bool = True
    flops: float = nan
    nbytes: float = nan
    task: str = ""


@dataclass(frozen=True, slots=True)
class Predictors:
    """The devices whose predictions are compared: one card calibrated, as its datasheet has it, and as a roofline."""

    device: Device
    datasheet: Device
    roofline: Device
    residual: Residual | None = None

    @classmethod
    def of(cls, name: str | Path, calibration: str | Path | None = "auto") -> Predictors:
        """The predictors of a card by name or path."""
        device = load_device(name, calibration=calibration)
        return cls(device, load_device(name, calibration=None), plain_roofline(device.card))


def compare_measurements(measurements: Measurements, predictors: Predictors) -> list[Comparison]:
    """Every measured time and energy of ``measurements`` against the predictions.

    Rows that the device cannot predict (a format it lacks) are left out; `uncovered` lists them.
    """
    seen = _seen_specs(measurements, predictors.device.card)
    found = [
        comparison
        for kernels in measured_kernels(measurements.rows, predictors.device)
        for comparison in _kernel_comparisons(kernels, predictors, seen)
    ]
    models = [row for row in measurements.rows if row.op == MODEL]
    return found + [comparison for row in models for comparison in _model_comparisons(row, predictors, seen)]


def _seen_specs(measurements: Measurements, card: Card) -> frozenset[str]:
    """The specs of the rows that the card's calibration was fitted to, or took its spreads from."""
    parts = card.calibration.parts.get(measurements.name) if card.calibration else None
    return frozenset(_case(row) for row in split_rows(measurements.rows, parts)[0]) if parts else frozenset()


def _case(row: Measurement) -> str:
    return " ".join(f"{name}={value}" for name, value in row.spec.items())


def _kernel_comparisons(kernels: MeasuredKernels, by: Predictors, seen: frozenset[str]) -> Iterator[Comparison]:
    ours, sheet, roof = (_predictions(kernels, device) for device in (by.device, by.datasheet, by.roofline))
    ratios = np.full(len(kernels.rows), nan)
    if by.residual is not None:
        ratios = by.residual.ratios(kernels, estimate_all(kernels.on(by.device), kernels.kernels))
    calibration = by.device.card.calibration
    spread = calibration.spread(kernels.family, str(kernels.cache)) if calibration else None
    for quantity in QUANTITIES:
        for i, measured in enumerate(kernels.measured(quantity)):
            if measured is None:
                continue
            row, figure = kernels.rows[i], ours[i][quantity]
            low, high = _interval(figure, spread) if quantity == "seconds" else (nan, nan)
            yield Comparison(
                kernels.family,
                row.op,
                _case(row).replace(f"op={row.op}", "").strip(),
                str(kernels.cache),
                quantity,
                measured,
                figure,
                sheet[i][quantity],
                roof[i][quantity],
                str(ours[i]["bound"]),
                figure * ratios[i] if quantity == "seconds" else nan,
                low,
                high,
                _case(row) not in seen,
                kernels.kernels[i].work.flops,
                kernels.kernels[i].nbytes,
                task_of(row.spec),
            )


def _interval(seconds: float, spread: Spread | None) -> tuple[float, float]:
    return (seconds * spread.low, seconds * spread.high) if spread else (nan, nan)


def _predictions(kernels: MeasuredKernels, device: Device) -> list[dict[str, Any]]:
    costs: list[Cost] = estimate_all(kernels.on(device), kernels.kernels)
    static = device.card.static_power
    return [
        {"seconds": cost.seconds, "joules": cost.joules + static * cost.seconds, "bound": cost.bound} for cost in costs
    ]


def _model_comparisons(row: Measurement, by: Predictors, seen: frozenset[str]) -> Iterator[Comparison]:
    """The comparisons of one run of a whole model; none where the zoo lacks it or the device cannot run it.

    Models tell the host's overhead, so that eager ones are seen as kernels are; of the others only the spread is known.
    """
    ours, sheet, roof = (measured_result(row, device) for device in (by.device, by.datasheet, by.roofline))
    if ours is None or sheet is None or roof is None:
        return
    mode, known = str(row.spec.get("mode", "graph")), _case(row) in seen
    interval = None if known else ours.interval
    for quantity, measured in zip(QUANTITIES, (row.seconds_warm, row.joules_warm), strict=True):
        if measured is None:
            continue
        timed = quantity == "seconds"
        predicted, alone, rough = (result.latency if timed else result.energy for result in (ours, sheet, roof))
        low, high = interval if interval and timed else (nan, nan)
        case, unseen = _case(row).replace("op=model", "").strip(), not (known and mode == EAGER)
        yield Comparison(
            END_TO_END,
            row.op,
            case,
            mode,
            quantity,
            measured,
            predicted,
            alone,
            rough,
            ours.bound,
            low=low,
            high=high,
            unseen=unseen,
        )


def uncovered(measurements: Measurements, comparisons: Sequence[Comparison]) -> Mapping[str, int]:
    """How many measured rows of each op have no prediction."""
    rows = Counter(row.op for row in measurements.rows)
    seen = Counter(op for op, _ in {(c.op, c.case) for c in comparisons})
    return {op: count - seen[op] for op, count in rows.items() if count > seen[op]}


def to_frame(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row per comparison, with each model's error |predicted/measured - 1| and whether the interval holds."""
    import pandas as pd

    frame = pd.DataFrame(comparisons, columns=list(Comparison.__dataclass_fields__))
    for model in MODELS:
        frame[f"{model}_error"] = (frame[model] / frame["measured"] - 1).abs()
    frame["inside"] = ((frame["low"] <= frame["measured"]) & (frame["measured"] <= frame["high"])).where(
        frame["low"].notna()
    )
    return frame


def error_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """MAPE, median and worst error by quantity, family and cache on unseen rows, for each of `MODELS`, the share of
    rows inside their interval, and of competing ``pairs`` that each of `RANKED` puts in the right order."""
    frame = to_frame(comparisons)
    frame = frame[frame["unseen"]]
    columns: dict[str, tuple[str, str | Callable[[Any], Any]]] = {"rows": ("measured", "size")}
    for model in MODELS:
        columns |= {
            f"{model}_mape": (f"{model}_error", "mean"),
            f"{model}_median": (f"{model}_error", "median"),
            f"{model}_worst": (f"{model}_error", "max"),
        }
    columns["inside"] = ("inside", "mean")
    groups = frame.groupby(["quantity", "family", "cache"], sort=True)
    table = groups.agg(**columns).reset_index()
    for model in RANKED:
        orders = [_order(group, model) for _, group in groups]
        table[f"{model}_order"], table["pairs"] = [o.share for o in orders], [o.pairs for o in orders]
    return table


def _order(rows: pd.DataFrame, model: str) -> RankOrder:
    figures = (rows[name].to_numpy(float) for name in ("measured", model, "flops", "nbytes"))
    return rank_order(rows["task"].to_numpy(str), *figures)


def worst_rows(comparisons: Sequence[Comparison], count: int = 10) -> list[Comparison]:
    """The comparisons that are furthest off in the logarithm of the ratio."""
    return sorted(comparisons, key=lambda c: -abs(np.log(c.predicted / c.measured)))[:count]


def explained(comparison: Comparison) -> str:
    """One line on a row that is far off: what the model thought was binding."""
    ratio = comparison.predicted / comparison.measured
    measured = (
        format_seconds(comparison.measured) if comparison.quantity == "seconds" else f"{comparison.measured:.3g} J"
    )
    where = f"{comparison.op} {comparison.case} ({comparison.cache})"
    return f"{where}: measured {measured}, predicted {ratio:.2g}x, thought bound by {comparison.bound}"
