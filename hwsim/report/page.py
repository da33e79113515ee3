"""The page of a study: one HTML file with its data and its charts, which opens without a network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hwsim.errors import InputError, Problem
from hwsim.report import figures as draw
from hwsim.report.frames import detailed, failed, finished, workload_text
from hwsim.report.mapper_labels import short_labels
from hwsim.report.provenance import MEANING, accuracy_text, mark_counts, sources_of
from hwsim.report.stored import read_stored
from hwsim.report.summary_table import Table, summary_table
from hwsim.report.theme import notes_of, template
from hwsim.report.verdict import headline, strip_key, verdicts, warnings
from hwsim.study.results import StudyResults
from hwsim.units import format_seconds

PAGE, FIGURES = "report.html", "figures"
MAX_ERRORS = 200
SECTIONS: dict[str, tuple[str, str]] = {
    "summary": ("All cases", "Click a header to sort; hover a figure for its SI value."),
    "roofline": ("Roofline", "How much arithmetic each kernel does per byte, and how close it comes to the roofs."),
    "memory-wall": ("Memory wall", "What fills the memories, what binds the time, and how devices have grown."),
    "breakdown": ("Where the time goes", "Latency by kind of layer."),
    "timeline": ("Timeline", "The kernels of one execution in order."),
    "pareto": ("Latency, energy, memory", "Which cases no other case of the same job beats."),
    "provenance": ("Where the figures come from", "Every figure of every card, with its source."),
}


def build_page(folder: Path, images: Sequence[str] = ()) -> Path:
    """Write the page and its figures into ``folder``; raises `InputError` where there are no results."""
    stored = read_stored(folder)
    if stored.cases.empty:
        raise InputError(Problem("the results hold no cases", str(folder)))
    table = summary_table(stored.cases, stored.record.get("study", {}).get("baseline"))
    stored = _with_short_mappers(stored)
    wanted = [name for name in stored.record.get("study", {}).get("report", SECTIONS) if name in SECTIONS]
    charts = dict(_charts(stored, wanted))
    for name, figure in charts.items():
        for suffix in (".json", *images):
            draw.write_figure(figure, folder / FIGURES / f"{name}{suffix}")
    page = folder / PAGE
    page.write_text(_render(stored, wanted, charts, table), "utf-8")
    return page


def _charts(stored: StudyResults, wanted: Sequence[str]) -> Iterator[tuple[str, go.Figure]]:
    """The figures of the wanted sections by name; those of the memory wall have several."""
    cases, kernels, cards = stored.cases, stored.kernels, stored.cards
    makers: dict[str, Callable[[], go.Figure | dict[str, go.Figure]]] = {
        "roofline": lambda: draw.roofline_figure(cases, kernels, cards),
        "memory-wall": lambda: draw.memory_wall_figures(cases, kernels, cards),
        "breakdown": lambda: draw.breakdown_figure(cases, kernels),
        "timeline": lambda: draw.timeline_figure(cases, kernels),
        "pareto": lambda: draw.pareto_figure(cases),
    }
    for section in wanted:
        made = makers[section]() if section in makers else {}
        if isinstance(made, dict):
            yield from ((f"{section}-{name}", figure) for name, figure in made.items())
        else:
            yield section, made


def _with_short_mappers(stored: StudyResults) -> StudyResults:
    """The results with labels of mappers as people read them."""
    if "mapper" not in stored.cases:
        return stored
    short, _ = short_labels(stored.cases["mapper"].astype(str))
    return replace(stored, cases=stored.cases.assign(mapper=stored.cases["mapper"].astype(str).map(short)))


def _render(stored: StudyResults, wanted: Sequence[str], charts: Mapping[str, go.Figure], table: Table) -> str:
    environment = Environment(loader=PackageLoader("hwsim.report", "."), autoescape=True, trim_blocks=True)
    environment.globals["count"] = lambda number, noun: f"{number} {noun}{'' if number == 1 else 's'}"
    study = stored.record.get("study", {})
    frame = detailed(stored.cases, stored.kernels)
    judged = verdicts(stored.cases, frame, stored.cards)
    return environment.get_template("report.html.j2").render(
        title=study.get("title") or study.get("study") or "Results",
        name=study.get("study", ""),
        sections={name: SECTIONS[name] for name in wanted},
        charts={name: {"notes": notes_of(figure), "height": figure.layout.height} for name, figure in charts.items()},
        verdicts=judged,
        key=strip_key(judged),
        headline=headline(stored.cases, stored.cards),
        warnings=list(warnings(stored.cases, frame, stored.cards)),
        failures=_failures(stored.cases),
        table=table,
        sources=sources_of(stored.cards),
        counts=mark_counts(stored.cards),
        meaning=MEANING,
        run=_run_facts(stored),
        accuracy=accuracy_text(),
        plotly=Markup(get_plotlyjs()),
        data=Markup(_data(charts)),
    )


def _data(charts: Mapping[str, go.Figure]) -> str:
    """Figures and templates as JSON that cannot leave its script element; the page puts the template back."""
    bare = {}
    for name, figure in charts.items():
        bare[name] = json.loads(figure.to_json())
        bare[name]["layout"].pop("template", None)
    schemes = {scheme: template(scheme).to_plotly_json() for scheme in ("light", "dark")}
    text = json.dumps({"figures": bare, "templates": schemes, "config": draw.CONFIG}, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _failures(cases: pd.DataFrame) -> dict[str, Any]:
    """The failed cases with their errors, and how many there are."""
    lost = failed(cases)
    listed = [
        (str(row["model"]), str(row["device"]), workload_text(row, cases), str(row.get("error") or "failed"))
        for _, row in lost.iloc[:MAX_ERRORS].iterrows()
    ]
    return {"count": len(lost), "listed": listed, "total": len(cases), "ok": len(finished(cases))}


def _run_facts(stored: StudyResults) -> dict[str, str]:
    """What the record says of the run, in words; what it lacks is left out."""
    record = stored.record
    host, git = record.get("host") or {}, record.get("git") or {}
    versions = record.get("versions") or {}
    facts = {
        "study file": record.get("file"),
        "started": record.get("started"),
        "wall time": format_seconds(float(record["seconds"])) if "seconds" in record else None,
        "host": ", ".join(str(host[key]) for key in ("name", "platform") if host.get(key)),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "commit": f"{git['commit'][:12]}{' with changes' if git.get('changed') else ''}" if git.get("commit") else None,
    }
    return {name: str(value) for name, value in facts.items() if value}
