"""Latency, energy, memory and throughput against each other: which cases nothing beats."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from hwsim.report.frames import count_text, finished, number_text, rows_of, workload_text
from hwsim.report.panels import Grid, grid
from hwsim.report.theme import (
    HOVERED,
    colours,
    empty_figure,
    finish,
    hover,
    log_axis,
    marker_keys,
    plain,
    symbols,
    toggle_menu,
)
from hwsim.units import format_quantity, format_seconds

JOB = ("phase", "prompt", "generate")  # cases of one job and model are alternatives to each other
MAX_JOBS = 8
MAX_DOTS = 600  # per job


def pareto_figure(cases: pd.DataFrame) -> go.Figure:
    """Latency against energy and peak memory, throughput against energy per token; dominated cases are faded."""
    done = finished(cases)
    if done.empty:
        return empty_figure("No finished case: no Pareto front.")
    table = _measures(done)
    tokens = table["tokens_per_s"].notna().any()
    titles = ["<b>latency and energy</b>", "<b>latency and peak memory</b>"]
    panels = grid(titles + (["<b>throughput and energy of a token</b>"] if tokens else []), 350, 3, shared=False)
    jobs = list(dict.fromkeys(table["job"]))
    ranked = sorted(jobs, key=lambda job: -len(table[table["job"] == job]))[:MAX_JOBS]
    hues, marks = colours(table["model"]), symbols(table["device"])
    omitted = 0
    for job in ranked:
        group = table[table["job"] == job]
        drawn = _limited(group)
        omitted += len(group) - len(drawn)
        for panel, measures in enumerate(_PANELS[: panels.count]):
            for trace in _panel(drawn, group, measures, str(ranked.index(job)), (hues, marks)):
                panels.add(panel, trace)
    marker_keys(panels.figure, hues, marks)
    _lay_out(panels, table, {str(i): _job_text(job) for i, job in enumerate(ranked)})
    return finish(panels.figure, panels.height, _notes(jobs, ranked, omitted), {"Model": hues, "Device": marks})


_PANELS = (
    ("latency_s", "energy_per_sequence", False),
    ("latency_s", "peak_memory_bytes", False),
    ("tokens_per_s", "energy_per_token", True),
)
_TITLES = {
    "latency_s": "Latency (s)",
    "energy_per_sequence": "Energy per sequence or image (J)",
    "peak_memory_bytes": "Peak memory (B)",
    "tokens_per_s": "Throughput (tokens/s)",
    "energy_per_token": "Energy per token (J)",
}


def _measures(done: pd.DataFrame) -> pd.DataFrame:
    """Cases with their job, energy per sequence and per token, and whether another of their job and model dominates."""
    table = done.assign(
        job=rows_of(done, JOB),
        energy_per_sequence=done["energy_j"] / done["batch"],
        tokens_per_s=pd.to_numeric(done["tokens_per_s"], errors="coerce"),
    )
    table["energy_per_token"] = table["energy_j"] / (table["tokens_per_s"] * table["latency_s"])
    keep = pd.Series(False, index=table.index)
    for _, group in table.groupby([*JOB, "model"], sort=False):
        goals = group[["latency_s", "energy_per_sequence", "peak_memory_bytes"]].to_numpy(dtype=float)
        keep.loc[group.index] = undominated(goals)
    return table.assign(best=keep)


def undominated(goals: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Rows that no other row beats: none is at least as small everywhere and smaller somewhere."""
    best = np.ones(len(goals), dtype=bool)
    for index, row in enumerate(goals):
        best[index] = not ((goals <= row).all(axis=1) & (goals < row).any(axis=1)).any()
    return best


def front(x: Sequence[float], y: Sequence[float], flip: bool) -> tuple[list[float], list[float]]:
    """The staircase of points with the smallest y at no larger x (no smaller x with ``flip``)."""
    xs: list[float] = []
    ys: list[float] = []
    for right, low in sorted(zip(x, y, strict=True), key=lambda point: (-point[0] if flip else point[0], point[1])):
        if not ys or low < ys[-1]:
            xs.append(right)
            ys.append(low)
    return xs, ys


def _limited(group: pd.DataFrame) -> pd.DataFrame:
    """All undominated cases, and of the others so many as to stay below the limit."""
    if len(group) <= MAX_DOTS:
        return group
    best, rest = group[group["best"]], group[~group["best"]]
    return pd.concat([best, rest.sample(max(0, MAX_DOTS - len(best)), random_state=0)])


def _panel(
    drawn: pd.DataFrame,
    group: pd.DataFrame,
    measures: tuple[str, str, bool],
    choice: str,
    looks: tuple[Mapping[Any, str], Mapping[Any, str]],
) -> Iterator[go.Scatter]:
    """The front of each model over all cases of ``group``, and the ``drawn`` ones; ``looks``: colours and symbols."""
    x, y, flip = measures
    there = group[group[x].notna() & group[y].notna()]
    for model, alike in there.groupby("model", sort=False):
        xs, ys = front(list(alike[x]), list(alike[y]), flip)
        yield go.Scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": looks[0][model], "width": 1.4, "shape": "vh" if flip else "hv"},
            name=f"front of {plain(model)}",
            legendgroup=f"legend:{model}",
            showlegend=False,
            hoverinfo="skip",
            meta={"choice": choice},
        )
    for best in (False, True):
        shown = drawn[(drawn["best"] == best) & drawn[x].notna() & drawn[y].notna()]
        yield _dots(shown, (x, y), choice, looks, best)


def _dots(
    shown: pd.DataFrame,
    measures: tuple[str, str],
    choice: str,
    looks: tuple[Mapping[Any, str], Mapping[Any, str]],
    best: bool,
) -> go.Scatter:
    hues, marks = looks
    size = {"size": 10, "opacity": 0.95} if best else {"size": 8, "opacity": 0.28}
    return go.Scatter(
        x=shown[measures[0]].to_numpy(),
        y=shown[measures[1]].to_numpy(),
        mode="markers",
        marker={
            "color": [hues[model] for model in shown["model"]],
            "symbol": [marks[device] for device in shown["device"]],
            "line": {"width": 0},
            **size,
        },
        name="undominated" if best else "dominated",
        showlegend=False,
        hovertext=[_text(row, best) for _, row in shown.iterrows()],
        hovertemplate=HOVERED,
        meta={"choice": choice},
    )


def _text(row: pd.Series, best: bool) -> str:
    tokens = row["tokens_per_s"]
    facts = {
        "workload": workload_text(row),
        "latency": format_seconds(float(row["latency_s"])),
        "energy": f"{format_quantity(float(row['energy_j']), 'J')}, "
        f"{format_quantity(float(row['energy_per_sequence']), 'J')} per sequence or image",
        "peak memory": format_quantity(float(row["peak_memory_bytes"]), "B"),
        "throughput": f"{number_text(tokens)} tokens/s" if tokens == tokens else "",
        "Pareto": "on the front" if best else "dominated",
    }
    return hover(f"{row['model']} on {row['device']}", facts)


def _lay_out(panels: Grid, table: pd.DataFrame, jobs: dict[str, str]) -> None:
    figure = panels.figure
    for panel, (x, y, _) in enumerate(_PANELS[: panels.count]):
        figure.update_xaxes(log_axis(_TITLES[x], table[x]), row=1, col=panel + 1)
        figure.update_yaxes(log_axis(_TITLES[y], table[y]), row=1, col=panel + 1)
    figure.update_layout(updatemenus=toggle_menu(figure, jobs, "0"))


def _job_text(job: tuple[object, ...]) -> str:
    phase, prompt, generate = job
    tail = f" + {count_text(generate)}" if phase == "generate" else ""
    return plain(f"{phase} {count_text(prompt)}{tail}")


def _notes(jobs: Sequence[object], ranked: Sequence[object], omitted: int) -> Iterator[str]:
    yield (
        "Solid: no other case of the same model and job (phase, prompt, generated tokens) is as good in latency, "
        "energy per sequence and peak memory and better in one. Line: a model's front in the panel's two measures."
    )
    if len(jobs) > len(ranked):
        yield f"The {len(ranked)} jobs with the most cases, of {len(jobs)}, can be chosen."
    if omitted:
        yield f"{omitted} dominated cases are not drawn."
