"""The page of a study: complete, self-contained, and safe whatever the names are."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hwsim.errors import InputError
from hwsim.report import write_report
from hwsim.report.frames import detailed
from hwsim.report.summary_table import summary_table
from hwsim.report.verdict import headline, leader, verdicts

HOSTILE = "<script>alert(1)</script>&\"'"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=60000 --dump-dom"
)


class Page(HTMLParser):
    """Collects what a page loads and the texts of its scripts and cells."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text("utf-8")
        self.loads: list[str] = []
        self.ids: set[str] = set()
        self.scripts: list[dict[str, str | None]] = []
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "link", "img", "iframe"):
            self.loads += [value for name in ("src", "href") if (value := given.get(name))]
        if tag == "script":
            self.scripts.append(given)
        if given.get("id"):
            self.ids.add(str(given["id"]))


def data_of(page: Page) -> Any:
    start = page.text.index('<script type="application/json" id="data">')
    text = page.text[page.text.index(">", start) + 1 :]
    return json.loads(text[: text.index("</script>")])


class TestPage:
    def test_it_loads_nothing_and_has_all_sections(self, stored: Any, tmp_path: Path) -> None:
        page = Page(write_report(stored.write(tmp_path, title="By hand")))
        assert page.loads == ["data:,"]
        assert {"verdict", "summary", "roofline", "memory-wall", "breakdown", "timeline", "pareto"} <= page.ids
        assert {"provenance", "failed", "cases"} <= page.ids

    def test_figures_lie_beside_it_as_json(self, stored: Any, tmp_path: Path) -> None:
        page = Page(write_report(stored.write(tmp_path)))
        names = {path.stem for path in (tmp_path / "figures").glob("*.json")}
        assert names == set(data_of(page)["figures"])
        assert {"roofline", "memory-wall-capacity", "memory-wall-growth"} <= names

    def test_it_has_the_sections_that_the_study_asks_for(self, stored: Any, tmp_path: Path) -> None:
        page = Page(write_report(stored.write(tmp_path, report=["pareto"])))
        assert "pareto" in page.ids
        assert not {"roofline", "summary", "provenance"} & page.ids

    def test_what_went_wrong_comes_first(self, stored: Any, tmp_path: Path) -> None:
        text = write_report(stored.write(tmp_path)).read_text("utf-8")
        failed, first_form, table = (text.index(part) for part in ("<b>Failed</b>", "<b>First form</b>", 'verdicts">'))
        assert max(failed, first_form) < table
        assert "llama does not fit" in text

    def test_hostile_names_stay_text(self, stored: Any, renamed: Callable[..., Any], tmp_path: Path) -> None:
        safe = Page(write_report(stored.write(tmp_path / "a", title="x")))
        bad = Page(write_report(renamed(stored, HOSTILE).write(tmp_path / "b", title=HOSTILE)))
        assert len(bad.scripts) == len(safe.scripts)
        assert HOSTILE not in bad.text
        assert "alert(1)" in json.dumps(data_of(bad))

    def test_one_case_is_enough(self, make: Any, tmp_path: Path) -> None:
        one = make(models=["llama"], devices=["nvidia-h200"], batches=[1], prompts=[2048])
        assert "1 case: 1 simulated" in write_report(one.write(tmp_path)).read_text("utf-8")

    def test_all_cases_failed(self, make: Any, tmp_path: Path) -> None:
        none = make(models=["llama"], devices=["nvidia-h200"], batches=[1], prompts=[2048], failing=(1,))
        assert "the only case failed" in write_report(none.write(tmp_path)).read_text("utf-8")

    def test_without_kernels_it_says_so(self, stored: Any, tmp_path: Path) -> None:
        folder = stored.write(tmp_path)
        (folder / "kernels.parquet").unlink()
        text = write_report(folder).read_text("utf-8")
        assert "kernels.parquet is missing" in text

    def test_a_folder_without_results_is_an_input_error(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no results in this folder"):
            write_report(tmp_path)

    def test_a_thousand_cases_stay_small_and_quick(self, make: Any, tmp_path: Path) -> None:
        models = [f"model-{number}" for number in range(5)]
        many = make(models=models, batches=range(1, 11), prompts=[2**power for power in range(8, 18)])
        folder = many.write(tmp_path)
        began = time.perf_counter()
        page = write_report(folder)
        assert len(many.cases) == 1000
        assert page.stat().st_size < 15e6
        assert time.perf_counter() - began < 30  # about 4 s where nothing else runs

    @pytest.mark.skipif(CHROMIUM is None, reason="no Chrome or Chromium")
    def test_a_browser_draws_it_without_complaint(
        self, stored: Any, renamed: Callable[..., Any], tmp_path: Path
    ) -> None:
        page = write_report(renamed(stored, HOSTILE).write(tmp_path / "out", baseline="sn40l"))
        command = [str(CHROMIUM), *FLAGS.split(), f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert 'data-drawn="yes"' in ran.stdout
        assert ran.stdout.count('class="main-svg"') >= 8
        assert "CONSOLE" not in ran.stderr


class TestTable:
    def test_ratios_refer_to_the_baseline(self, stored: Any) -> None:
        cases = stored.cases.copy()
        cases.loc[cases["device"] == "sn40l", "latency_s"] *= 3
        table = summary_table(cases, "nvidia-h200")
        assert ("latency", "/ nvidia-h200") in table.headers
        column = table.headers.index(("latency", "/ nvidia-h200"))
        ratios = {cells[2].text: cells[column].text for cells, error in table.rows if not error}
        assert ratios == {"nvidia-h200": "1.00×", "sn40l": "3.00×"}

    def test_a_failed_case_has_its_error_instead_of_figures(self, stored: Any) -> None:
        errors = [error for _, error in summary_table(stored.cases, None).rows if error]
        assert errors == ["llama does not fit"]

    def test_cells_hold_si_values(self, stored: Any) -> None:
        table = summary_table(stored.cases, None)
        cell = table.rows[0][0][table.headers.index(("latency", "s"))]
        assert (cell.text, cell.title, float(cell.key)) == ("1 ms", "0.001 s", 1e-3)

    def test_what_all_cases_share_is_said_once(self, stored: Any) -> None:
        assert summary_table(stored.cases, None).constant == "decode, bf16, auto"

    def test_mappers_are_told_apart_by_the_options_that_differ(self, stored: Any) -> None:
        labels = [f"offload[weights=[{share}, 0, 0],batches=3]" for share in range(len(stored.cases))]
        table = summary_table(stored.cases.assign(mapper=labels), None)
        cell = table.rows[1][0][table.headers.index(("mapper", ""))]
        assert (cell.text, cell.title, cell.long) == ("offload: weights 1/0/0", labels[1], True)
        assert table.constant.endswith("offload: batches 3")


class TestVerdict:
    def test_it_says_what_binds_how_close_and_what_would_help(self, stored: Any) -> None:
        (first, *_) = verdicts(stored.cases, detailed(stored.cases, stored.kernels), stored.cards)
        (phase,) = first.phases
        # Half of the time is bound by matmul, at 1e14 of 989.4e12 FLOP/s.
        assert phase.bound == "matmul 50%, at 10% of its peak"
        assert phase.moves[0] == "2× matmul rate: −25% time"
        assert phase.best == "1,000 tokens/s"
        assert (first.ok, first.failed) == (5, 1)

    def test_more_power_helps_only_down_to_the_other_roofs(self, stored: Any) -> None:
        kernels = stored.kernels.assign(bound=stored.kernels["bound"].replace("matmul", "power"))
        (first, *_) = verdicts(stored.cases, detailed(stored.cases, kernels), stored.cards)
        # Half of the time is bound by power, at 10 % of the matrix units' peak and 4 of the 9.7 TB/s of the L2.
        assert first.phases[0].moves[0] == "a higher power limit: −29% time"

    def test_the_leader_is_found_over_the_jobs_that_all_did(self) -> None:
        rows = [("a", 1, 1.0), ("b", 1, 2.0), ("a", 2, 8.0), ("b", 2, 2.0), ("b", 4, 1e-9)]
        cases = pd.DataFrame(rows, columns=["device", "batch", "latency_s"])
        # sqrt(1 · 8) = 2.8 against sqrt(2 · 2) = 2; batch 4 counts for neither.
        assert leader(cases, "latency_s") == "b"

    def test_the_headline_marks_first_forms(self, stored: Any) -> None:
        cases = stored.cases.copy()
        cases.loc[cases["device"] == "sn40l", ["latency_s", "energy_j"]] /= 2
        assert headline(cases, stored.cards) == "Fastest: sn40l, first form. Least energy: sn40l, first form."
