"""`hwsim run`: a study, from its file to results and a report."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hwsim.commands.output import print_columns, print_json, records, say
from hwsim.errors import PartialFailure
from hwsim.progress import PATIENCE_S, PLAIN_S
from hwsim.units import format_seconds

if TYPE_CHECKING:
    from hwsim.study import Progress, StudyRun

TELLING = 0.05  # the share of the cases after which their pace is known
SHOWN = 60  # rows of a table for people


def run(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="The study file.")],
    out: Annotated[Path | None, typer.Option(help="Results folder.", show_default="out/<name of the study>")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change the study: workload.batch=8, matrix.batch=[1,8]."),
    ] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Worker processes.", show_default="one per CPU")] = None,
    cluster: Annotated[str | None, typer.Option(metavar="tcp://...", help="A dask scheduler to run on.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be simulated, and stop.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Simulate again what is stored already.")] = False,
    report: Annotated[bool, typer.Option(help="Build the HTML report.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the cases as JSON in SI units.")] = False,
) -> None:
    """Simulate every case of a study; cases that are stored already are not simulated again."""
    if jobs is not None and cluster is not None:
        raise typer.BadParameter("give --jobs or --cluster, not both")
    if dry_run:
        _preview(study, out, settings or [], jobs, json)
        return
    done = _run(study, out, settings or [], jobs, cluster, force)
    _print_cases(done, json)
    if report:
        from hwsim.report import write_report

        say(f"report: {write_report(done.folder)}")
    if done.failed:
        raise PartialFailure(f"{done.failed} of {done.ok + done.failed} cases failed; the column error says why")


def _run(
    study: Path, out: Path | None, settings: list[str], jobs: int | None, cluster: str | None, force: bool
) -> StudyRun:
    from hwsim.study import run_study

    last: list[Progress] = []
    try:
        with _shown() as show:

            def listen(progress: Progress) -> None:
                last[:] = [progress]
                show(progress)

            done = run_study(study, out, settings=settings, jobs=jobs, cluster=cluster, force=force, listener=listen)
    except KeyboardInterrupt:
        if last:
            stored = last[0].cached + last[0].done
            say(f"hwsim: interrupted: {stored} of {last[0].total} cases are stored; the same command does the others")
        raise
    counts = f"{done.ok} ok, {done.failed} failed, {done.cached} of them stored before"
    say(f"{_cases(done.ok + done.failed)} in {format_seconds(done.seconds)}: {counts}; results in {done.folder}")
    if done.left_out:
        say(f"{_cases(done.left_out)} left out: their model does not have the phase")
    return done


def _cases(count: int) -> str:
    return f"{count} case{'' if count == 1 else 's'}"


def _preview(study: Path, out: Path | None, settings: list[str], jobs: int | None, json: bool) -> None:
    from hwsim.study import preview_study

    found = preview_study(study, out, settings=settings, jobs=jobs)
    rows = [
        {**found.plan.inputs(case), "state": "cached" if case.key in found.cached else "to run"}
        for case in found.plan.cases
    ]
    states = Counter(row["state"] for row in rows)
    if json:
        print_json({"cases": rows, "seconds": found.seconds, "unmodelled": found.unmodelled})
    else:
        columns = [*_telling(rows), "state"]
        print_columns(rows[:SHOWN], columns)
        _say_rest(len(rows))
    say(f"{states['to run']} to run, {states['cached']} cached, about {format_seconds(found.seconds)}")
    if found.plan.left_out:
        say(f"{_cases(found.plan.left_out)} left out: their model does not have the phase")
    for model, names in found.unmodelled.items():
        say(f"{model}: ops without a formula, charged their bytes only: {', '.join(names)}")


def _print_cases(done: StudyRun, json: bool) -> None:
    rows = records(done.to_frame())
    if json:
        print_json(rows)
        return
    print_columns(rows[:SHOWN], [*_telling(rows), *_figures(rows)])
    _say_rest(len(rows))


def _telling(rows: list[dict[str, Any]]) -> list[str]:
    """The inputs that tell the cases apart, and the most important ones."""
    always = ("model", "device", "phase", "batch", "prompt")
    names = ("model", "device", "mapper", "phase", "batch", "prompt", "generate", "dtype")
    return [name for name in names if name in always or len({row[name] for row in rows}) > 1]


def _figures(rows: list[dict[str, Any]]) -> list[str]:
    figures = ["latency_s", "tokens_per_s", "energy_j", "bandwidth_bytes_per_s", "peak_memory_bytes", "bound"]
    return figures + [name for name in ("notes", "error") if any(row[name] for row in rows)]


def _say_rest(count: int) -> None:
    if count > SHOWN:
        say(f"{count - SHOWN} more rows are in cases.parquet, or with --json")


@contextmanager
def _shown() -> Iterator[Any]:
    """A listener: a bar on a terminal, else a line now and then; nothing for what is over at once."""
    if sys.stderr.isatty():
        with _Bar() as bar:
            yield bar
    else:
        yield _Lines()


class _Lines:
    """Progress in lines, for logs."""

    def __init__(self) -> None:
        self._next = monotonic() + PATIENCE_S
        self._started = monotonic()  # with the cases, after the models are captured

    def __call__(self, progress: Progress) -> None:
        now = monotonic()
        if progress.doing:
            self._started = now
        if now < self._next:
            return
        self._next = now + PLAIN_S
        if progress.doing:
            say(f"hwsim: {progress.doing}")
            return
        ended, left = progress.cached + progress.done, progress.total - progress.cached - progress.done
        counts = f"{progress.cached} cached, {progress.failed} failed"
        telling = progress.done >= TELLING * (progress.done + left)
        rest = f", about {format_seconds((now - self._started) / progress.done * left)} left" if telling else ""
        say(f"hwsim: {ended} of {progress.total} cases ({counts}){rest}")


class _Bar:
    """Progress as a bar with the time left."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("starting")
        self._started = monotonic()
        self._visible = False
        return self

    def __call__(self, progress: Progress) -> None:
        if not self._visible and monotonic() - self._started > PATIENCE_S:
            self._bar.start()
            self._visible = True
        text = progress.doing or f"{progress.cached} cached, {progress.failed} failed"
        self._bar.update(self._task, description=text, completed=progress.cached + progress.done, total=progress.total)

    def __exit__(self, *failure: object) -> None:
        self._bar.stop()
