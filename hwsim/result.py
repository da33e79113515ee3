"""What a simulation found: time, energy and memory in all, and per kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwsim.card import Card, Spread
from hwsim.engine import Timeline
from hwsim.graph import Role
from hwsim.kernel_family import END_TO_END
from hwsim.mapper import Kernel, Schedule
from hwsim.units import format_quantity, format_seconds
from hwsim.work import Work
from hwsim.workload import Workload

if TYPE_CHECKING:
    import pandas as pd

    from hwsim.system import System

NO_WORK = Work(dtype="")  # of a transfer
DEVICE, HOST = "device", "host"  # what sets the pace of a run


@dataclass(frozen=True)
class PhaseResult:
    """One executed graph; ``weight`` says for how many executions it stands (steps of a growing context)."""

    phase: str
    context: int
    schedule: Schedule
    timeline: Timeline
    unmodelled: tuple[str, ...] = ()
    level: str = "module"
    weight: float = 1.0

    @property
    def seconds(self) -> float:
        """Time of one execution."""
        return self.timeline.seconds

    @cached_property
    def busy_seconds(self) -> float:
        """What one execution would take if no host had to issue its kernels."""
        pairs = zip(self.timeline.costs, self.schedule.counts, strict=True)
        return min(self.seconds, sum(count * cost.seconds for cost, count in pairs))

    def scaled(self, device: float, host: float) -> float:
        """Seconds of one execution if the ``device`` and the ``host`` took so many times as long: the slower of both
        sets the pace."""
        busy, issue = self.busy_seconds, self.timeline.issue_seconds
        slower = max(busy, issue)
        return self.seconds * max(device * busy, host * issue) / slower if slower else 0.0

    @cached_property
    def dynamic_joules(self) -> float:
        """Dynamic energy of one execution."""
        pairs = zip(self.timeline.costs, self.schedule.counts, strict=True)
        return sum(count * cost.joules for cost, count in pairs)

    @cached_property
    def traffic(self) -> Mapping[str, float]:
        """Bytes moved per memory in one execution."""
        moved: dict[str, float] = {}
        for cost, count in zip(self.timeline.costs, self.schedule.counts, strict=True):
            for memory, nbytes in cost.traffic.items():
                moved[memory] = moved.get(memory, 0.0) + count * nbytes
        return moved

    def rows(self) -> list[dict[str, Any]]:
        """One row per step of the schedule: totals over all its executions, times the weight; ``memory_bytes`` is
        what is in use while it runs. A transfer is of the kind ``transfer`` and does no work."""
        rows = []
        pairs = zip(
            self.schedule.steps,
            self.timeline.costs,
            self.schedule.counts,
            self.timeline.elapsed,
            self.schedule.in_use,
            strict=True,
        )
        for step, cost, count, elapsed, memory in pairs:
            times = self.weight * count
            work = step.work if isinstance(step, Kernel) else NO_WORK
            row: dict[str, Any] = {
                "phase": self.phase,
                "context": self.context,
                "kernel": step.name,
                "kind": str(step.kind) if isinstance(step, Kernel) else "transfer",
                "path": step.path,
                "dtype": work.dtype,
                "launches": times,
                "seconds": self.weight * elapsed,
                "busy_seconds": times * cost.seconds,
                "dynamic_joules": times * cost.joules,
                "bound": cost.bound,
                "memory_bytes": memory,
                "matmul_flops": times * work.matmul_flops,
                "vector_flops": times * work.vector_flops,
                "special_ops": times * work.special_ops,
                "unmodelled": work.unmodelled,
            }
            row |= {f"{role}_bytes": times * work.bytes_of_role(role) for role in Role}
            row |= {f"{memory}_traffic": times * nbytes for memory, nbytes in cost.traffic.items()}
            rows.append(row)
        return rows


@dataclass(frozen=True)
class Result:
    """The outcome of one case. Seconds, joules, bytes; ``integration_error`` is the relative error estimate of the
    sum over a growing context; ``mapper`` is a label, all its options stand in ``mapper_options`` as JSON; ``card`` is
    that of the main device where a ``system`` ran."""

    model: str
    card: Card
    mapper: str
    workload: Workload
    phases: tuple[PhaseResult, ...]
    integration_error: float = 0.0
    mapper_options: str = ""
    system: System | None = None

    @property
    def device(self) -> str:
        """The name of the card, or of the system."""
        return self.card.name if self.system is None else self.system.name

    @cached_property
    def latency(self) -> float:
        """Seconds for the whole workload."""
        return sum(part.weight * part.seconds for part in self.phases)

    @property
    def interval(self) -> tuple[float, float] | None:
        """Bounds of the latency that should hold in 90 % of cases; None for a card without calibration.

        Device and host are as uncertain as the calibration saw of whole models whose pace each of them set; which of
        both sets it here is uncertain too.
        """
        device, host = self._spreads
        if device is None or host is None:
            return None
        low = sum(part.weight * part.scaled(device.low, host.low) for part in self.phases)
        return low, sum(part.weight * part.scaled(device.high, host.high) for part in self.phases)

    @property
    def _spreads(self) -> tuple[Spread | None, Spread | None]:
        """How uncertain the device is, and the host."""
        known = self.card.calibration
        return (known.spread(END_TO_END, DEVICE), known.spread(END_TO_END, HOST)) if known else (None, None)

    @property
    def paces(self) -> Mapping[str, float]:
        """Seconds for the whole workload if only the device, or only the host that issues its kernels, took time."""
        return {
            DEVICE: sum(part.weight * part.busy_seconds for part in self.phases),
            HOST: sum(part.weight * part.timeline.issue_seconds for part in self.phases),
        }

    @cached_property
    def analytic(self) -> float | None:
        """Seconds that formulas give beside the event engine, never more than it; None where it did not run."""
        bounds = [part.timeline.bound_seconds for part in self.phases]
        if all(bound is None for bound in bounds):
            return None
        pairs = zip(self.phases, bounds, strict=True)
        return sum(part.weight * (part.seconds if bound is None else bound) for part, bound in pairs)

    @cached_property
    def analytic_bound(self) -> str:
        """What sets the largest part of `analytic`: an engine, a memory or link, or ``waits`` of steps for others."""
        shares: dict[str, float] = {}
        for part in self.phases:
            name, seconds = part.timeline.bound_by, part.timeline.bound_seconds or 0.0
            shares[name] = shares.get(name, 0.0) + part.weight * seconds
        return max(shares, key=shares.__getitem__, default="")

    @cached_property
    def energy(self) -> float:
        """Joules: static power over the latency, and the dynamic energy of every kernel."""
        static = self.card.static_power if self.system is None else self.system.static_power
        return static * self.latency + sum(part.weight * part.dynamic_joules for part in self.phases)

    @cached_property
    def traffic(self) -> Mapping[str, float]:
        """Bytes moved per memory over the whole workload."""
        moved: dict[str, float] = {}
        for part in self.phases:
            for memory, nbytes in part.traffic.items():
                moved[memory] = moved.get(memory, 0.0) + part.weight * nbytes
        return moved

    @property
    def bandwidth(self) -> float:
        """Bytes per second moved from and to the main memory, on average."""
        return self.traffic.get(self.card.main.name, 0.0) / self.latency if self.latency else 0.0

    @cached_property
    def peak_by_memory(self) -> Mapping[str, float]:
        """The most bytes in use at once, per memory, over all phases."""
        peak: dict[str, float] = {}
        for part in self.phases:
            for memory, nbytes in part.schedule.peak.items():
                peak[memory] = max(peak.get(memory, 0.0), nbytes)
        return peak

    @property
    def peak_memory(self) -> float:
        """The most bytes in use at once in all memories together."""
        return max(sum(part.schedule.peak.values()) for part in self.phases)

    @property
    def unmodelled(self) -> tuple[str, ...]:
        """Ops without a formula, charged their operand bytes only."""
        return tuple(sorted({name for part in self.phases for name in part.unmodelled}))

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about this result."""
        notes = [note for part in self.phases for note in part.schedule.notes]
        known = self.card.calibration
        if known is not None and known.note:
            notes.append(known.note)
        elif origins := {spread.origin for spread in self._spreads if spread and spread.origin}:
            notes.append(f"interval of {', '.join(sorted(origins))}, on which more models were measured")
        if self.card.first_form:
            notes.append("first form: this card knows peaks only")
        if self.unmodelled:
            notes.append(f"unmodelled ops, charged their bytes only: {', '.join(self.unmodelled)}")
        return tuple(dict.fromkeys(notes))

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of all sequences per second: generated ones, or prompt tokens for prefill and train; None without."""
        load = self.workload
        tokens = {"decode": 1, "generate": load.generate, "prefill": load.prompt, "train": load.prompt}.get(load.phase)
        return None if tokens is None else load.batch * tokens / self.latency

    @cached_property
    def bound(self) -> str:
        """The resource that binds the largest share of the time."""
        shares: dict[str, float] = {}
        for row in self._rows:
            shares[row["bound"]] = shares.get(row["bound"], 0.0) + row["seconds"]
        return max(shares, key=shares.__getitem__) if shares else ""

    @cached_property
    def flops(self) -> float:
        """FLOPs of all kernels."""
        return float(sum(row["matmul_flops"] + row["vector_flops"] + row["special_ops"] for row in self._rows))

    @cached_property
    def _rows(self) -> list[dict[str, Any]]:
        return [row for part in self.phases for row in part.rows()]

    def to_frame(self) -> pd.DataFrame:
        """One row per kernel and phase, totals over the workload, SI units."""
        import pandas as pd

        frame = pd.DataFrame(self._rows)
        traffic = [column for column in frame.columns if column.endswith("_traffic")]
        frame[traffic] = frame[traffic].fillna(0.0)
        return frame

    def summary(self) -> dict[str, Any]:
        """The case in one flat row: inputs and headline figures, SI units."""
        load = self.workload
        low, high = self.interval or (None, None)
        footprint: dict[str, float] = {}
        for part in self.phases:
            for role, nbytes in part.schedule.footprint.items():
                footprint[role] = max(footprint.get(role, 0.0), nbytes)
        return {
            "model": self.model,
            "device": self.device,
            "mapper": self.mapper,
            "mapper_options": self.mapper_options,
            "phase": load.phase,
            "batch": load.batch,
            "prompt": load.prompt,
            "generate": load.generate,
            "dtype": load.dtype,
            "latency_s": self.latency,
            "latency_low_s": low,
            "latency_high_s": high,
            "analytic_s": self.analytic,
            "analytic_bound": self.analytic_bound,
            "energy_j": self.energy,
            "tokens_per_s": self.tokens_per_second,
            "bandwidth_bytes_per_s": self.bandwidth,
            "peak_memory_bytes": self.peak_memory,
            "flops": self.flops,
            "traffic_bytes": self.traffic.get(self.card.main.name, 0.0),
            "bound": self.bound,
            **{f"{role}_bytes": nbytes for role, nbytes in footprint.items()},
            "integration_error": self.integration_error,
            "first_form": self.card.first_form,
            "notes": "; ".join(self.notes),
        }

    def to_perfetto(self, path: str | Path) -> None:
        """Write a Chrome trace (open it in ui.perfetto.dev); ``.gz`` compresses it."""
        from hwsim.trace_file import write_trace

        write_trace(self, Path(path))

    def __repr__(self) -> str:
        return (
            f"Result({self.model} {self.workload.phase} on {self.device}: {format_seconds(self.latency)}, "
            f"{format_quantity(self.energy, 'J')}, {format_quantity(self.bandwidth, 'B/s')}, "
            f"peak {format_quantity(self.peak_memory, 'B')}, bound by {self.bound})"
        )

    def _repr_html_(self) -> str:
        return f"<pre>{self!r}</pre>"


def as_json(result: Result) -> str:
    """The summary as JSON, SI units."""
    return json.dumps(result.summary(), indent=2)
