"""Where the time goes: latency by kind of layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
import plotly.graph_objects as go

from hwsim.report.frames import CATEGORIES, HOST_WAIT, detailed, finished, phase_text, representative, workload_text
from hwsim.report.theme import (
    GREY,
    HOVERED,
    PALETTE,
    empty_figure,
    finish,
    hover,
    plain,
    toggle_menu,
)
from hwsim.units import format_seconds

MAX_BARS = 64
BAR_HEIGHT = 23
LEAST_HEIGHT = 170  # pixels, of the title of the axis
HUES = dict(zip((*CATEGORIES, HOST_WAIT), (*PALETTE[: len(CATEGORIES)], GREY), strict=True))
SHARE, SECONDS = "share", "seconds"
AXES: dict[str, dict[str, object]] = {
    SHARE: {"title": {"text": "Share of the time by kind of layer (%)"}, "tickformat": ".0%", "range": [0, 1]},
    SECONDS: {"title": {"text": "Time by kind of layer (s)"}, "tickformat": "~s", "rangemode": "tozero"},
}
LOOK = {"autorange": True}


def breakdown_figure(cases: pd.DataFrame, kernels: pd.DataFrame) -> go.Figure:
    """Stacked bars per device, model and phase: share of the time (a button shows seconds) by kind of layer."""
    frame = detailed(cases, kernels)
    if frame.empty:
        return empty_figure("No kernels stored: no breakdown.")
    chosen = representative(finished(cases))
    bars = by_category(frame[frame["case"].isin(chosen["case"])])
    drawn = bars.iloc[:MAX_BARS].iloc[::-1]  # plotly draws the first bar at the bottom
    workloads = {row["case"]: workload_text(row) for _, row in chosen.iterrows()}
    figure = go.Figure()
    kinds = [name for name in HUES if name in drawn and (drawn[name] > 0).any()]
    for mode in (SHARE, SECONDS):
        for category in kinds:
            figure.add_trace(_bar(drawn, category, mode, workloads))
        figure.add_trace(_totals(drawn, mode))
    labels = {SHARE: "share of the time", SECONDS: "seconds"}
    menu = toggle_menu(figure, labels, SHARE, {mode: {"xaxis": {**axis, **LOOK}} for mode, axis in AXES.items()})
    figure.update_layout(barmode="stack", bargap=0.3, updatemenus=menu)
    figure.update_xaxes(AXES[SHARE])
    figure.update_yaxes(range=[-0.5, len(drawn) - 0.5], title_text="Device, model and phase")
    figure.update_yaxes(dividerwidth=0.5, dividercolor=GREY, tickmode="linear", dtick=1)
    height = max(LEAST_HEIGHT, BAR_HEIGHT * len(drawn))
    return finish(figure, height, _notes(bars, chosen, cases), {"Kind": kinds}, margin_r=84)


def by_category(frame: pd.DataFrame) -> pd.DataFrame:
    """Seconds per kind of layer and of waiting for the host, a row per device, model, job, phase and case."""
    index = ["device", "model", "job", "phase", "case"]
    busy = frame.pivot_table(index=index, columns="category", values="busy_seconds", aggfunc="sum", sort=False)
    table = busy.fillna(0.0).assign(**{HOST_WAIT: frame.groupby(index, sort=False)["waiting"].sum()})
    order = {device: position for position, device in enumerate(dict.fromkeys(frame["device"]))}
    return table.sort_index(level=0, key=lambda names: names.map(order), sort_remaining=False, kind="stable")


def _bar(drawn: pd.DataFrame, category: str, mode: str, workloads: Mapping[object, str]) -> go.Bar:
    total = drawn.sum(axis=1)
    shares = drawn[category] / total
    texts = []
    for (device, model, _, phase, case), seconds, share in zip(drawn.index, drawn[category], shares, strict=True):
        facts = {
            "model": model,
            "device": device,
            "phase": phase,
            "workload": workloads[case],
            "time": format_seconds(float(seconds)),
            "share": f"{share:.1%}",
        }
        texts.append(hover(category, facts))
    return go.Bar(
        x=(shares if mode == SHARE else drawn[category]).to_numpy(),
        y=_labels(drawn),
        orientation="h",
        name=category,
        marker={"color": HUES[category], "line": {"width": 0}},
        legendgroup=category,
        hovertext=texts,
        hovertemplate=HOVERED,
        textposition="none",
        meta={"choice": mode},
    )


def _totals(drawn: pd.DataFrame, mode: str) -> go.Scatter:
    """The seconds of the whole bar, written at its end."""
    total = drawn.sum(axis=1)
    texts = [format_seconds(float(value)) for value in total]
    return go.Scatter(
        x=[1.0] * len(total) if mode == SHARE else total.to_numpy(),
        y=_labels(drawn),
        mode="text",
        text=[f" {text}" for text in texts],
        textposition="middle right",
        textfont={"size": 11, "color": GREY},
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
        name="total",
        meta={"choice": mode},
    )


def _labels(drawn: pd.DataFrame) -> list[list[str]]:
    """Two levels of labels: the device, then model and phase."""
    return [
        [plain(device) for device, *_ in drawn.index],
        [f"{plain(model)}, {plain(phase_text(job, phase))}" for _, model, job, phase, _ in drawn.index],
    ]


def _notes(bars: pd.DataFrame, chosen: pd.DataFrame, cases: pd.DataFrame) -> Iterator[str]:
    jobs = sorted({workload_text(row) for _, row in chosen.iterrows()})
    extra = f" and {len(jobs) - 3} more" if len(jobs) > 3 else ""
    total = len(finished(cases))
    yield f"One case per model, device and phase, of {total}: {'; '.join(jobs[:3])}{extra}; each bar's time at its end."
    if len(bars) > MAX_BARS:
        yield f"{MAX_BARS} of {len(bars)} bars drawn."
