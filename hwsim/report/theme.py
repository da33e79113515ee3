"""What all charts share: palette, template in light and dark, axes with units, hover text, legends, buttons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from math import ceil
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's palette without its yellow and black, then Tol's muted colours: told apart by colour-blind readers.
PALETTE = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#882255",
    "#44AA99",
    "#999933",
    "#332288",
)
GREY = "#7d858f"  # legible on white and on the dark page
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star", "hexagon", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, "Liberation Sans", sans-serif'

# Pixels above the panels, from the top: legends, a row of buttons, the panels' titles.
MARGIN, LEGEND_LINE, MENU_LINE, TITLE_LINE, BOTTOM = 6, 22, 34, 38, 58
LEGEND_WIDTH, LEGEND_CHARACTER, LEGEND_KEY = 1000, 6.5, 46
MAX_BUTTONS = 6  # more choices are a dropdown

_INK = {"light": ("#1f2328", "#e4e7eb", "#aab1ba", "#ffffff"), "dark": ("#d7dbe0", "#2b3138", "#4d555e", "#1d2228")}


def template(scheme: str = "light") -> go.layout.Template:
    """The layout of every chart; ``scheme`` is light or dark."""
    ink, grid, line, panel = _INK[scheme]
    axis = {
        "gridcolor": grid,
        "linecolor": line,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "tickcolor": line,
        "ticklen": 4,
        "title": {"standoff": 8},
        "automargin": True,
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": ink},
            "colorway": list(PALETTE),
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "xaxis": axis,
            "yaxis": axis,
            "legend": {"bgcolor": "rgba(0,0,0,0)", "itemsizing": "constant", "font": {"size": 11.5}},
            "hoverlabel": {
                "align": "left",
                "bgcolor": panel,
                "bordercolor": line,
                "font": {"family": FONT, "size": 12, "color": ink},
            },
            "margin": {"l": 64, "r": 36},  # the buttons of the mode bar stand in the right one, clear of the legends
            "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": ink},
            "annotationdefaults": {"font": {"size": 12.5}, "arrowcolor": GREY},
        }
    )


def finish(
    figure: go.Figure,
    height: int,
    notes: Iterable[str] = (),
    legends: Mapping[str, Iterable[object]] | None = None,
    **layout: object,
) -> go.Figure:
    """The figure under the shared template, its panels ``height`` pixels high below legends, buttons and titles.

    ``legends``: title and entries of each, in order. ``notes`` say what the figure leaves out and travel with it.
    """
    offset = MARGIN
    placed: list[int] = []
    for title, names in (legends or {}).items():
        placed.append(offset)
        width = sum(LEGEND_CHARACTER * len(str(name)) + LEGEND_KEY for name in (title, *names))
        offset += LEGEND_LINE * ceil(width / LEGEND_WIDTH)
    top = offset + (MENU_LINE if figure.layout.updatemenus else 0) + (TITLE_LINE if figure.layout.annotations else 8)
    for note in figure.layout.annotations:
        note.font.size = note.font.size if note.name else 13
    whole = top + height + BOTTOM
    for number, (title, start) in enumerate(zip(legends or {}, placed, strict=True), start=1):
        figure.update_layout({f"legend{number if number > 1 else ''}": _legend(title, 1 - start / whole)})
    kept = {"notes": [note for note in notes if note]}
    margin = {"t": top, "b": BOTTOM}
    return figure.update_layout(template=template(), height=whole, meta=kept, margin=margin, **layout)


def _legend(title: str, y: float) -> dict[str, Any]:
    """A horizontal legend whose top is at ``y`` of the whole figure."""
    place = {"orientation": "h", "x": 0, "xanchor": "left", "xref": "container", "yref": "container"}
    return {
        "title": {"text": f"{plain(title)}  ", "font": {"size": 11.5}},
        "traceorder": "normal",
        "y": y,
        "yanchor": "top",
        **place,
    }


def notes_of(figure: go.Figure) -> list[str]:
    """What the figure leaves out, in words."""
    return list((figure.layout.meta or {}).get("notes", []))


def empty_figure(reason: str) -> go.Figure:
    """A small figure that says why there is nothing to draw."""
    figure = go.Figure()
    figure.add_annotation(text=plain(reason), showarrow=False, xref="paper", yref="paper", x=0.5, y=0.5)
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return finish(figure, 120, [reason])


def plain(text: object) -> str:
    """Text that stays text: plotly reads tags in labels."""
    return escape(str(text), quote=False)


def hover(title: object, lines: Mapping[str, object]) -> str:
    """Hover text: a bold title, one line per fact; empty facts are left out."""
    facts = [f"{name}: {plain(value)}" for name, value in lines.items() if value not in ("", None)]
    return "<br>".join([f"<b>{plain(title)}</b>", *facts])


HOVERED = "%{hovertext}<extra></extra>"


def colours(names: Iterable[object]) -> dict[Any, str]:
    """A colour per name in order; they repeat after the tenth."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(dict.fromkeys(names))}


def symbols(names: Iterable[object]) -> dict[Any, str]:
    """A marker symbol per name in order."""
    return {name: SYMBOLS[i % len(SYMBOLS)] for i, name in enumerate(dict.fromkeys(names))}


def dashes(names: Iterable[object]) -> dict[Any, str]:
    """A line style per name in order."""
    return {name: DASHES[i % len(DASHES)] for i, name in enumerate(dict.fromkeys(names))}


def log_axis(title: str, values: Iterable[float] = (), prefixed: bool = True) -> dict[str, Any]:
    """A logarithmic axis; ``title`` carries the unit, ticks an SI prefix unless the unit takes none.

    Where ``values`` span little, the ticks stand at 1, 2 and 5 of a decade rather than at 1.
    """
    positive = [value for value in values if value > 0]
    narrow = bool(positive) and max(positive) < 60 * min(positive)
    step = {"dtick": "D2" if narrow else 1}
    return {"type": "log", "title": {"text": title}, "tickformat": "~s" if prefixed else ",~g", **step}


def share_axis(title: str) -> dict[str, Any]:
    """A linear axis of shares from 0 to 100 %."""
    return {"title": {"text": title}, "tickformat": ".0%", "range": [-0.03, 1.05]}


def key_trace(name: str, legend: str, **style: object) -> go.Scatter:
    """A legend entry without data: what a colour or a symbol stands for."""
    return go.Scatter(
        x=[None], y=[None], name=plain(name), legend=legend, legendgroup=f"{legend}:{name}", hoverinfo="skip", **style
    )


def marker_keys(figure: go.Figure, hues: Mapping[Any, str], marks: Mapping[Any, str]) -> None:
    """What colours (first legend) and symbols (second legend) stand for."""
    for name, hue in hues.items():
        figure.add_trace(key_trace(str(name), "legend", mode="markers", marker={"color": hue, "size": 9}))
    for name, symbol in marks.items():
        marker = {"color": GREY, "symbol": symbol, "size": 9}
        figure.add_trace(key_trace(str(name), "legend2", mode="markers", marker=marker))


def toggle_menu(
    figure: go.Figure, labels: Mapping[str, str], start: str, layouts: Mapping[str, Mapping[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Buttons that show the traces whose ``meta.choice`` is the pressed one's; traces without a choice always stay.

    Shows those of ``start``; no buttons where there is only one choice. ``layouts`` holds what else a button changes.
    """
    choices = [str(trace.meta["choice"]) if trace.meta else None for trace in figure.data]
    present = [choice for choice in labels if choice in choices]
    chosen = start if start in present else next(iter(present), None)
    for trace, choice in zip(figure.data, choices, strict=True):
        trace.visible = choice in (None, chosen)
    if len(present) < 2:
        return []
    buttons = [
        {
            "label": plain(labels[name]),
            "method": "update",
            "args": [{"visible": [choice in (None, name) for choice in choices]}, (layouts or {}).get(name, {})],
        }
        for name in present
    ]
    look = {"font": {"size": 11.5}, "bgcolor": "rgba(0,0,0,0)", "bordercolor": GREY, "borderwidth": 0.5}
    place = {"x": 1, "xanchor": "right", "y": 1.0, "yanchor": "bottom", "pad": {"b": TITLE_LINE}}
    kind = {"type": "buttons", "direction": "right"} if len(present) <= MAX_BUTTONS else {"type": "dropdown"}
    return [{**kind, "buttons": buttons, "active": present.index(str(chosen)), **place, **look}]
