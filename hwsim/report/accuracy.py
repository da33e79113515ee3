"""What validation found, to read: docs/accuracy.md, and a page of charts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hwsim.card import Card
from hwsim.commands.output import records
from hwsim.measurements import Measurements
from hwsim.ranking import DIFFERENCE, SAME_WORK
from hwsim.report.error_by_size import error_by_size_figure
from hwsim.report.figures import CONFIG, write_figure
from hwsim.report.scatter import scatter_figure
from hwsim.report.theme import notes_of, template
from hwsim.units import format_seconds
from hwsim.validation import MODELS, Comparison, to_frame, worst_rows

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

WORST = 10
TITLES = {
    "predicted": "physical model",
    "residual": "with learned correction",
    "datasheet": "uncalibrated",
    "roofline": "plain roofline",
}
TAIL = ("inside 90 %", "order", "order, uncalibrated")  # the columns after the errors


def accuracy_page(measurements: Sequence[Measurements], tables: Mapping[str, pd.DataFrame], card: Card) -> str:
    """The page docs/accuracy.md as Markdown: what was measured, how, and the error tables as they came out."""
    lines = ["# Accuracy", "", *_introduction(measurements, card)]
    for found in measurements:
        lines += ["", f"## {found.name}", "", f"{len(found.rows)} rows.", ""]
        lines += [f"- {line}" for line in dict.fromkeys(found.header)]
        lines += ["", *markdown(tables[found.name])]
    return "\n".join(lines) + "\n"


def _introduction(measurements: Sequence[Measurements], card: Card) -> list[str]:
    known = card.calibration
    fitted = f"fitted by `hwsim calibrate` ({known.name})" if known else "those of its datasheet and public benchmarks"
    names = " ".join(found.name for found in measurements)
    return [
        f"Predictions of the card `{card.name}` against measurements. The physical model's constants are {fitted};",
        "tables show rows that were not fitted. `uncalibrated`: the same model with the card's own figures only.",
        "`plain roofline`: peak rate and peak bandwidth. [Notes](accuracy-notes.md): which rows the model saw",
        "otherwise, what was aimed at, what falls short.",
        "",
        "- `seconds` are of one call, `joules` what the whole device draws meanwhile, idle power included.",
        "- `MAPE`, the mean absolute percentage error, is the mean of |predicted/measured - 1|; `median` and `worst`",
        "  are of the same errors.",
        "- `cold`: caches flushed, one launch. `warm`: replayed back to back in a CUDA graph. `eager`, `graph`,",
        "  `compile`: how a whole model (`end to end`) is launched.",
        "- `inside 90 %`: each estimate has an interval that should hold 90 % of measurements; this is the share of",
        "  rows that lie in theirs, whose bounds other rows gave. Where it is lower, intervals are too narrow.",
        "- `order`: two kernels compete where they are of one op and do the same FLOPs or move the same bytes (to",
        f"  {SAME_WORK:.0%}) in another shape, format or layout, and one takes over {DIFFERENCE:.0%} longer.",
        "  This is the share of such pairs whose faster kernel is predicted to be the faster one, by the physical",
        "  model and uncalibrated. A coin gets 50 %.",
        "",
        f"Made by `hwsim validate {names} --device {card.name} --residual --write PAGE.md`.",
    ]


def markdown(table: pd.DataFrame) -> list[str]:
    """An error table as Markdown; a model that says nothing of any row has no columns."""
    models = shown_models(table)
    heads = [f"{TITLES[model]} MAPE | median | worst" for model in models]
    lines = [f"| quantity | family | cache or mode | rows | {' | '.join([*heads, *TAIL])} |"]
    lines.append("|---|---|---|---:|" + "---:|" * (3 * len(models) + len(TAIL)))
    for row in records(table):
        cells = [_percent(row[f"{model}_{figure}"]) for model in models for figure in ("mape", "median", "worst")]
        start = f"| {row['quantity']} | {row['family']} | {row['cache']} | {row['rows']} | "
        lines.append(f"{start}{' | '.join([*cells, _percent(row['inside']), *ranked(row)])} |")
    return lines


def shown_models(table: pd.DataFrame) -> list[str]:
    """Those of `MODELS` that predict some row."""
    return [model for model in MODELS if table[f"{model}_mape"].notna().any()]


def ranked(row: Mapping[str, Any]) -> tuple[str, str]:
    """The shares of competing pairs that the calibrated and the uncalibrated model put in the right order, and how many
    there are; empty where none compete."""
    if not row["pairs"]:
        return "", ""
    return f"{_percent(row['predicted_order'])} of {row['pairs']}", _percent(row["datasheet_order"])


def _percent(share: float) -> str:
    return "" if share != share else f"{share:.1%}"


def write_accuracy(comparisons: Sequence[Comparison], tables: Mapping[str, pd.DataFrame], path: Path) -> None:
    """A page with the scatter, errors by size and family, and the worst rows explained (.html); else the scatter."""
    unseen = [row for row in comparisons if row.unseen and row.quantity == "seconds"]
    frame = to_frame(unseen)
    scatter = scatter_figure(frame.assign(label=frame["op"] + " " + frame["case"] + " (" + frame["cache"] + ")"))
    if path.suffix.lower() != ".html":
        write_figure(scatter, path)
        return
    charts = {"scatter": scatter, "by-size": error_by_size_figure(frame)}
    environment = Environment(loader=PackageLoader("hwsim.report", "."), autoescape=True, trim_blocks=True)
    text = environment.get_template("accuracy.html.j2").render(
        charts={name: {"notes": notes_of(chart), "height": chart.layout.height} for name, chart in charts.items()},
        tables={name: _rows(table) for name, table in tables.items()},
        worst=[_explained(row) for row in worst_rows(unseen, WORST)],
        rows=len(unseen),
        plotly=Markup(get_plotlyjs()),
        data=Markup(_data(charts)),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


def _rows(table: pd.DataFrame) -> dict[str, Any]:
    models = shown_models(table)
    return {
        "heads": [*(TITLES[model] for model in models), *TAIL],
        "rows": [
            [
                *(row[name] for name in ("quantity", "family", "cache", "rows")),
                *(_percent(row[f"{model}_mape"]) for model in models),
                _percent(row["inside"]),
                *ranked(row),
            ]
            for row in records(table)
        ],
    }


def _explained(row: Comparison) -> dict[str, str]:
    return {
        "what": f"{row.op} ({row.cache})",
        "case": row.case,
        "measured": format_seconds(row.measured),
        "predicted": format_seconds(row.predicted),
        "ratio": f"{row.predicted / row.measured:.2f}",
        "bound": row.bound,
    }


def _data(charts: Mapping[str, go.Figure]) -> str:
    """Figures as JSON that cannot leave its script element."""
    figures = {name: json.loads(chart.update_layout(template=template()).to_json()) for name, chart in charts.items()}
    text = json.dumps({"figures": figures, "config": CONFIG}, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
