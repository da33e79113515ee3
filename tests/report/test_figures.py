"""What every chart owes its reader: axes with units, hover text, legends, and notes on what it leaves out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import pytest
from toys import mlp, toy_device

import hwsim
from hwsim.errors import InputError
from hwsim.report import figures
from hwsim.report.theme import notes_of

UNITLESS = {"Year of release", "Device, model and phase", "Device"}
NAMES = ["roofline", "capacity", "bound-share", "growth", "breakdown", "timeline", "pareto", "scatter"]


def measured_rows() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "predicted": [1e-3, 2e-3, 0.0],
            "measured": [1e-3, 1e-3, 1e-3],
            "family": ["matmul", "norm", "norm"],
            "label": ["a", "b", "c"],
        }
    )


def drawn(stored: Any) -> dict[str, go.Figure]:
    cases, kernels, cards = stored.cases, stored.kernels, stored.cards
    return {
        "roofline": figures.roofline_figure(cases, kernels, cards),
        **figures.memory_wall_figures(cases, kernels, cards),
        "breakdown": figures.breakdown_figure(cases, kernels),
        "timeline": figures.timeline_figure(cases, kernels),
        "pareto": figures.pareto_figure(cases),
        "scatter": figures.scatter_figure(measured_rows()),
    }


@pytest.fixture(scope="module")
def charts(stored: Any) -> dict[str, dict[str, Any]]:
    return {name: json.loads(figure.to_json()) for name, figure in drawn(stored).items()}


def axes(chart: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, axis in chart["layout"].items():
        if name.startswith(("xaxis", "yaxis")):
            yield axis


@pytest.mark.parametrize("name", NAMES)
class TestEveryChart:
    def test_axes_have_titles_with_units(self, charts: dict[str, dict[str, Any]], name: str) -> None:
        for axis in axes(charts[name]):
            title = axis.get("title", {}).get("text", "")
            assert title in UNITLESS or title.endswith(")") or axis.get("ticksuffix"), axis

    def test_data_has_hover_text(self, charts: dict[str, dict[str, Any]], name: str) -> None:
        for trace in charts[name]["data"]:
            assert trace.get("hovertemplate") or trace.get("hoverinfo") == "skip", trace.get("name")

    def test_there_is_a_legend(self, charts: dict[str, dict[str, Any]], name: str) -> None:
        shown = [trace for trace in charts[name]["data"] if trace.get("showlegend", True)]
        assert shown
        assert all(trace.get("name") for trace in shown)
        assert charts[name]["layout"]["legend"]["yref"] == "container"

    def test_all_share_one_template(self, charts: dict[str, dict[str, Any]], name: str) -> None:
        assert charts[name]["layout"]["template"] == charts["growth"]["layout"]["template"]

    def test_notes_travel_with_it(self, charts: dict[str, dict[str, Any]], name: str) -> None:
        assert charts[name]["layout"]["meta"]["notes"]


class TestNothingToDraw:
    def test_empty_frames_give_a_reason(self) -> None:
        nothing = pd.DataFrame({"status": [], "case": [], "model": [], "device": []})
        for figure in (
            figures.roofline_figure(nothing, pd.DataFrame(), {}),
            figures.breakdown_figure(nothing, pd.DataFrame()),
            figures.timeline_figure(nothing, pd.DataFrame()),
            figures.pareto_figure(nothing),
            figures.growth_figure([]),
            figures.scatter_figure(measured_rows().iloc[2:]),
        ):
            assert "No" in notes_of(figure)[0]


class TestWriteFigure:
    def test_html_opens_alone_and_carries_the_notes(self, stored: Any, tmp_path: Any) -> None:
        figure = figures.pareto_figure(stored.cases)
        path = figures.write_figure(figure, tmp_path / "new" / "pareto.html")
        page = path.read_text("utf-8")
        assert notes_of(figure)[0].split(":")[0] in page
        assert 'src="http' not in page

    def test_json_is_the_figure(self, stored: Any, tmp_path: Any) -> None:
        path = figures.write_figure(figures.pareto_figure(stored.cases), tmp_path / "pareto.json")
        assert json.loads(path.read_text("utf-8"))["layout"]["height"] > 0

    def test_several_figures_get_their_names(self, stored: Any, tmp_path: Any) -> None:
        walls = figures.memory_wall_figures(stored.cases, stored.kernels, stored.cards)
        paths = figures.write_figures(walls, tmp_path / "wall.json")
        assert [path.name for path in paths] == ["wall-capacity.json", "wall-bound-share.json", "wall-growth.json"]

    def test_an_unknown_suffix_is_refused(self, tmp_path: Any) -> None:
        with pytest.raises(InputError, match=r"\.html, \.json, \.png, \.svg"):
            figures.write_figure(go.Figure(), tmp_path / "figure.gif")

    def test_an_image_without_kaleido_names_the_extra(self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "kaleido", None)
        with pytest.raises(InputError, match=r"hwsim\[static\].*Chrome"):
            figures.write_figure(go.Figure(), tmp_path / "figure.png")


def test_results_become_the_frames_of_a_study(tmp_path: Any) -> None:
    device = toy_device(tmp_path)
    results = [hwsim.estimate(mlp(rows=rows), device) for rows in (8, 16)]
    cases, kernels = figures.cases_of(results), figures.kernels_of(results)
    assert list(cases["case"]) == [1, 2]
    assert list(cases["status"]) == ["ok", "ok"]
    assert set(kernels["case"]) == {1, 2}
    assert figures.cards_of(results) == {"toy": device.card}
    assert figures.roofline_figure(cases, kernels, figures.cards_of(results)).data


def test_labels_stay_text(stored: Any, renamed: Callable[..., Any]) -> None:
    for figure in drawn(renamed(stored, "<b onload=alert(1)>&<script>")).values():
        chart = json.loads(figure.to_json())
        for trace in chart["data"]:
            for unseen in ("legendgroup", "meta"):
                trace.pop(unseen, None)
        seen = [chart["data"], chart["layout"].get("annotations"), chart["layout"].get("updatemenus")]
        assert "<script>" not in json.dumps(seen)
