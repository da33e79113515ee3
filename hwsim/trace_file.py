"""Chrome traces: the timeline of a result, one track per serial resource, for ui.perfetto.dev."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.mapper import Kernel
from hwsim.result import PhaseResult

if TYPE_CHECKING:
    from hwsim.result import Result

MICRO = 1e6


def write_trace(result: Result, path: Path) -> None:
    """One track for the device's kernels and counters of its bandwidth; sampled steps follow each other."""
    events = [{"name": "process_name", "ph": "M", "pid": 0, "args": {"name": f"{result.device}: {result.model}"}}]
    offset = 0.0
    for part in result.phases:
        events += _events(part, offset)
        offset += part.seconds
    text = json.dumps({"traceEvents": events, "displayTimeUnit": "ns"})
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text, "utf-8")


def _events(part: PhaseResult, offset: float) -> Iterator[dict[str, Any]]:
    for span in part.timeline.spans:
        kernel, cost = part.schedule.kernels[span.kernel], part.timeline.costs[span.kernel]
        start, end = span.start, span.end
        yield {
            "name": kernel.name,
            "cat": str(kernel.kind),
            "ph": "X",
            "pid": 0,
            "tid": 0,
            "ts": (offset + start) * MICRO,
            "dur": (end - start) * MICRO,
            "args": _details(kernel, part, cost.bound),
        }
        seconds = end - start
        rates = {memory: nbytes / seconds / 1e9 for memory, nbytes in cost.traffic.items() if seconds}
        yield {"name": "GB/s", "ph": "C", "pid": 0, "ts": (offset + start) * MICRO, "args": rates}


def _details(kernel: Kernel, part: PhaseResult, bound: str) -> dict[str, Any]:
    return {
        "phase": part.phase,
        "context": part.context,
        "path": kernel.path,
        "bound": bound,
        "flops": kernel.work.flops,
        "bytes": kernel.nbytes,
    }
