"""All charts by name, and writing one to a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from hwsim.errors import InputError, Problem
from hwsim.report.breakdown import breakdown_figure
from hwsim.report.frames import cards_of, cases_of, kernels_of
from hwsim.report.growth import growth_figure
from hwsim.report.memory_wall import memory_wall_figures
from hwsim.report.pareto import pareto_figure
from hwsim.report.roofline import roofline_figure
from hwsim.report.scatter import scatter_figure
from hwsim.report.theme import notes_of, plain
from hwsim.report.timeline import timeline_figure

__all__ = [
    "breakdown_figure",
    "cards_of",
    "cases_of",
    "growth_figure",
    "kernels_of",
    "memory_wall_figures",
    "pareto_figure",
    "roofline_figure",
    "scatter_figure",
    "timeline_figure",
    "write_figure",
    "write_figures",
]

IMAGES = (".png", ".svg")
SUFFIXES = (".html", ".json", *IMAGES)
WIDTH = 1180  # of images, in pixels
_LINE = 170  # characters of a note on one line of an image


def write_figure(figure: go.Figure, path: Path) -> Path:
    """Write ``figure`` as .html, .json, .png or .svg; `InputError` for another suffix, or an image without Chrome."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(Problem("unknown kind of figure", str(path), got=suffix, expected=", ".join(SUFFIXES)))
    path.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".json":
        path.write_text(figure.to_json(), "utf-8")
    elif suffix == ".html":
        path.write_text(_annotated(figure).to_html(include_plotlyjs=True, config=CONFIG), "utf-8")
    else:
        path.write_bytes(_image(figure, suffix))
    return path


def write_figures(figures: Mapping[str, go.Figure], path: Path) -> list[Path]:
    """Write several figures: ``wall.html`` becomes ``wall-<name>.html`` for each."""
    return [
        write_figure(figure, path.with_name(f"{path.stem}-{name}{path.suffix}")) for name, figure in figures.items()
    ]


CONFIG: dict[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}


def _annotated(figure: go.Figure) -> go.Figure:
    """The figure with its notes written below it, where no page does so."""
    lines = [line for note in notes_of(figure) for line in wrap(note, _LINE)]
    if not lines:
        return figure
    copy = go.Figure(figure)
    below = (copy.layout.margin.b or 56) + 6
    room = 16 * len(lines) + 14
    copy.add_annotation(
        text="<br>".join(map(plain, lines)),
        font={"size": 10.5},
        align="left",
        showarrow=False,
        xref="paper",
        yref="paper",
        x=0,
        y=0,
        xanchor="left",
        yanchor="top",
        yshift=-below,
    )
    copy.update_layout(height=(copy.layout.height or 450) + room, margin={"b": below + room})
    return copy


def _still(figure: go.Figure) -> go.Figure:
    """The figure without its buttons; what they show at first is said in its notes."""
    shown = [menu.buttons[menu.active].label for menu in figure.layout.updatemenus]
    if not shown:
        return figure
    copy = go.Figure(figure)
    notes = [*notes_of(figure), f"Shown: {', '.join(shown)}; the others are in the .html."]
    return copy.update_layout(updatemenus=[], meta={"notes": notes})


def _image(figure: go.Figure, suffix: str) -> bytes:
    advice = "pip install 'hwsim[static]', and Chrome or Chromium on this machine; .html and .json need neither"
    try:
        import kaleido  # noqa: F401
    except ImportError:
        raise InputError(Problem(f"a {suffix} image needs kaleido", expected=advice)) from None
    image = _annotated(_still(figure)).update_layout(paper_bgcolor="#ffffff")
    try:
        data: bytes = image.to_image(format=suffix[1:], width=WIDTH, height=image.layout.height, scale=2)
    except (RuntimeError, ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(Problem(f"a {suffix} image cannot be made: {reason}", expected=advice)) from None
    return data
