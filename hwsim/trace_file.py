"""Chrome traces: the timeline of a result, one track per serial resource, for ui.perfetto.dev."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.mapper import Kernel, Step
from hwsim.result import PhaseResult

if TYPE_CHECKING:
    from hwsim.result import Result

MICRO = 1e6


def write_trace(result: Result, path: Path) -> None:
    """A track for the device's kernels, or one per stream, and counters of bandwidth; sampled steps in a row."""
    name = f"{result.device}: {result.model}"
    events: list[dict[str, Any]] = [{"name": "process_name", "ph": "M", "pid": 0, "args": {"name": name}}]
    tracks: dict[str, int] = {}
    offset = 0.0
    for part in result.phases:
        events += _events(part, offset, tracks)
        offset += part.seconds
    for track, number in tracks.items():
        events.append({"name": "thread_name", "ph": "M", "pid": 0, "tid": number, "args": {"name": track}})
    text = json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text, "utf-8")


def _events(part: PhaseResult, offset: float, tracks: dict[str, int]) -> Iterator[dict[str, Any]]:
    timeline = part.timeline
    for span in timeline.spans:
        step, cost = part.schedule.steps[span.step], timeline.costs[span.step]
        start, seconds = span.start, span.end - span.start
        track = tracks.setdefault(timeline.tracks[span.step], len(tracks)) if timeline.tracks else 0
        yield {
            "name": step.name,
            "cat": str(step.kind) if isinstance(step, Kernel) else "transfer",
            "ph": "X",
            "pid": 0,
            "tid": track,
            "ts": (offset + start) * MICRO,
            "dur": seconds * MICRO,
            "args": _details(step, part, cost.bound),
        }
        rates = {memory: nbytes / seconds / 1e9 for memory, nbytes in cost.traffic.items() if seconds}
        counter = f"GB/s of {timeline.tracks[span.step]}" if timeline.tracks else "GB/s"
        yield {"name": counter, "ph": "C", "pid": 0, "ts": (offset + start) * MICRO, "args": rates}


def _details(step: Step, part: PhaseResult, bound: str) -> dict[str, Any]:
    flops = step.work.flops if isinstance(step, Kernel) else 0.0
    return {
        "phase": part.phase,
        "context": part.context,
        "path": step.path,
        "bound": bound,
        "flops": flops,
        "bytes": step.nbytes,
    }
