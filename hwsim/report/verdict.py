"""The verdict: what binds each model on each device, how close to that roof it runs, and what would move it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from hwsim.card import Card
from hwsim.report.bound_share import bound_shares, is_memory
from hwsim.report.frames import HOST_WAIT, INPUTS, failed, finished, number_text, workload_text
from hwsim.report.roofs import rate_of
from hwsim.report.theme import GREY, PALETTE
from hwsim.units import format_seconds

WORTH = 0.1  # of the time; smaller shares are not worth a change
SHOWN = 0.005  # smaller shares are not part of a strip
HUES = {
    "matmul": PALETTE[1],
    "vector": PALETTE[4],
    "special": PALETTE[6],
    "latency": PALETTE[3],
    HOST_WAIT: GREY,
    "power": PALETTE[8],
}
MEMORY_HUES = (PALETTE[0], PALETTE[5], PALETTE[7], PALETTE[9], PALETTE[2])
ADVICE = {
    "latency": "fewer, larger kernels",
    HOST_WAIT: "launches from a recorded graph",
    "power": "a higher power limit",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the time bound by one resource, with its colour in the strip."""

    resource: str
    share: float
    colour: str


@dataclass(frozen=True, slots=True)
class PhaseVerdict:
    """What binds one phase: ``parts`` are shares of the time, the largest first; its best case; what would move it."""

    phase: str
    parts: tuple[Part, ...]
    bound: str
    best: str
    setting: str
    moves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One model on one device, phase by phase; none where no case has a result."""

    model: str
    device: str
    first_form: bool
    phases: tuple[PhaseVerdict, ...]
    ok: int
    failed: int


def verdicts(cases: pd.DataFrame, frame: pd.DataFrame, cards: Mapping[str, Card]) -> list[Verdict]:
    """One verdict per model and device in the order of the cases; ``frame`` holds detailed kernels."""
    hues = _hues(frame)
    of_pair = {} if frame.empty else dict(iter(frame.groupby(["model", "device"], sort=False)))
    judged = []
    for (model, device), group in cases.groupby(["model", "device"], sort=False):
        card = cards.get(str(device))
        done = finished(group)
        kernels = of_pair.get((model, device), frame.iloc[:0])
        phases = tuple(_phases(done, cases, kernels, card, hues))
        simple = _is_simple(cards, str(device))
        judged.append(Verdict(str(model), str(device), simple, phases, len(done), len(failed(group))))
    return judged


def _phases(
    done: pd.DataFrame, cases: pd.DataFrame, kernels: pd.DataFrame, card: Card | None, hues: Mapping[str, str]
) -> Iterator[PhaseVerdict]:
    """A verdict per executed phase; the best case of a job of several phases stands with the first of them."""
    best = {str(phase): _best(group, cases) for phase, group in done.groupby("phase", sort=False)}
    several = len(best) > 1 or not set(best) <= set(kernels.get("phase", []))
    for phase in list(dict.fromkeys(kernels.get("phase", []))) or list(best):
        alike = kernels if kernels.empty else kernels[kernels["phase"] == phase]
        shares = mean_shares(alike)
        parts = tuple(Part(name, share, hues.get(name, GREY)) for name, share in shares.items() if share >= SHOWN)
        job = phase if phase in best else next(iter(best), "")
        figure, setting = best.pop(job, ("", ""))
        text = f"{job}: {figure}" if several and job != phase and figure else figure
        yield PhaseVerdict(
            str(phase), parts, _bound(shares, alike, card), text, setting, tuple(_moves(shares, alike, card))
        )


def _hues(frame: pd.DataFrame) -> dict[str, str]:
    """A colour per binding resource: memories and links share a family of colours, units of all devices have one."""
    if frame.empty:
        return dict(HUES)
    names = [str(name) for name in dict.fromkeys(frame["bound"])]
    units = {name: HUES.get(name.rpartition(".")[2], GREY) for name in names if not is_memory(name)}
    memories = [name for name in names if is_memory(name)]
    return HUES | units | {name: MEMORY_HUES[i % len(MEMORY_HUES)] for i, name in enumerate(memories)}


def mean_shares(kernels: pd.DataFrame) -> dict[str, float]:
    """Shares of the time by binding resource, the mean over the cases: a long case counts as much as a short one."""
    if kernels.empty:
        return {}
    mean = bound_shares(kernels, ["case"]).mean().sort_values(ascending=False)
    return {str(name): float(share) for name, share in mean.items() if share > 0}


def _bound(shares: Mapping[str, float], kernels: pd.DataFrame, card: Card | None) -> str:
    """Bound by what, for how long, and how close to that roof."""
    if not shares:
        return ""
    name = next(iter(shares))
    close = None if card is None else closeness(name, kernels[kernels["bound"] == name], card)
    roof = "bandwidth" if is_memory(name) else "peak"
    near = f", at {close:.0%} of its {roof}" if close is not None else ""
    return f"{name} {shares[name]:.0%}{near}"


def closeness(resource: str, bound: pd.DataFrame, card: Card) -> float | None:
    """The share of a resource's peak that the kernels ``bound`` by it reach; None where it has no peak.

    Reads and writes may each have their own bandwidth, so that the share is at most 1.
    """
    seconds = float(bound["busy_seconds"].sum())
    if not seconds:
        return None
    memories = {memory.name: memory for memory in card.memories}
    if resource in memories and f"{resource}_traffic" in bound:
        memory = memories[resource]
        fastest = max(memory.bandwidth, memory.write_bandwidth)
        return min(1.0, float(bound[f"{resource}_traffic"].sum()) / (seconds * fastest))
    if resource == "matmul":
        needed = sum(
            float(group["matmul_flops"].sum()) / rate_of(card, str(dtype)) for dtype, group in bound.groupby("dtype")
        )
        return min(1.0, needed / seconds)
    return None


def _best(done: pd.DataFrame, cases: pd.DataFrame) -> tuple[str, str]:
    """The case of the highest throughput, or of the least latency where there are no tokens: figure and inputs."""
    rates = pd.to_numeric(done["tokens_per_s"], errors="coerce")
    best = done.iloc[int(rates.argmax() if rates.notna().any() else done["latency_s"].argmin())]
    time, inputs = format_seconds(float(best["latency_s"])), workload_text(best.drop("phase"), cases)
    if rates.notna().any():
        return f"{number_text(rates.max())} tokens/s", ", ".join(filter(None, (time, inputs)))
    return time, inputs


def _moves(shares: Mapping[str, float], kernels: pd.DataFrame, card: Card | None) -> Iterator[str]:
    """What the largest shares respond to; twice a rate saves at most half of the share that it binds (Amdahl), and
    without a limit of power the other roofs are left."""
    for name, share in list(shares.items())[:2]:
        if name == "power" and card is not None:
            share = _above_roofs(kernels, card)
        if share < WORTH:
            continue
        if name in ADVICE:
            yield f"{ADVICE[name]}: −{share:.0%} time"
        else:
            yield f"2× {name} {'bandwidth' if is_memory(name) else 'rate'}: −{share / 2:.0%} time"


def _above_roofs(kernels: pd.DataFrame, card: Card) -> float:
    """The share of the time that kernels bound by power take beyond the time at the card's peaks, the mean of cases."""
    roofs = ("matmul", *(memory.name for memory in card.memories))
    saved = []
    for _, case in kernels.groupby("case"):
        bound = case[case["bound"] == "power"]
        near = max(filter(None, (closeness(name, bound, card) for name in roofs)), default=0.0)
        saved.append((1 - near) * float(bound["seconds"].sum()) / max(float(case["seconds"].sum()), 1e-300))
    return sum(saved) / max(1, len(saved))


def warnings(cases: pd.DataFrame, frame: pd.DataFrame, cards: Mapping[str, Card]) -> Iterator[tuple[str, str]]:
    """What a reader must know before the figures: a heading and a text each."""
    simple = sorted(name for name, card in cards.items() if card.first_form)
    if simple:
        text = f"{', '.join(simple)}: the card knows peaks only, so that times are lower bounds."
        yield "First form", text
    if not frame.empty and frame["unmodelled"].any():
        yield "Unmodelled ops", "; ".join(_unmodelled(frame)) + ". They are charged their bytes only."
    if len(finished(cases)) and frame.empty:
        yield "No kernels", "kernels.parquet is missing: charts of kernels and the shares of time are left out."
    notes = cases.get("notes", pd.Series("", index=cases.index)).fillna("")
    spilled = cases[notes.str.contains("spilled to the host")]
    if len(spilled):
        first = spilled.iloc[0]
        spill = next(note for note in first["notes"].split("; ") if "spilled to the host" in note)
        example = f"{first['model']} on {first['device']} ({spill})"
        yield "Spilled", f"{len(spilled)} of {len(cases)} cases overflow to the host's memory, such as {example}."


def _unmodelled(frame: pd.DataFrame) -> Iterator[str]:
    for model, group in frame.groupby("model", sort=False):
        rows = group[group["unmodelled"].astype(bool)]
        if len(rows):
            worst = rows.groupby("case")["share"].sum().max()
            yield f"{model}: {', '.join(sorted(set(rows['kernel'])))} (at most {worst:.2%} of a case's time)"


def headline(cases: pd.DataFrame, cards: Mapping[str, Card]) -> str:
    """Which devices take the least time and energy, counted over pairs of model and phase."""
    done = finished(cases)
    if done.empty:
        return "No case has a result."
    groups = [group for _, group in done.groupby(["model", "phase"], sort=False)]
    told = []
    for measure, name in (("latency_s", "Fastest"), ("energy_j", "Least energy")):
        leaders = [device for device in (leader(group, measure) for group in groups) if device]
        counts = sorted({device: leaders.count(device) for device in leaders}.items(), key=lambda item: -item[1])
        named = [f"{device}, first form" if _is_simple(cards, device) else device for device, _ in counts]
        if len(counts) == 1:
            told.append(f"{name}: {named[0]}.")
        elif counts:
            listed = ", ".join(f"{label} ({number})" for label, (_, number) in zip(named, counts[:3], strict=False))
            told.append(f"{name} (of {len(leaders)} pairs of model and phase): {listed}.")
    return " ".join(told)


def _is_simple(cards: Mapping[str, Card], device: str) -> bool:
    return device in cards and cards[device].first_form


def leader(cases: pd.DataFrame, measure: str) -> str:
    """The device with the least ``measure`` in the geometric mean over the jobs that all devices did; "" without."""
    if cases["device"].nunique() < 2:
        return ""
    jobs = [name for name in INPUTS if name in cases]
    table = cases.pivot_table(index=jobs, columns="device", values=measure, aggfunc="min", sort=False).dropna()
    if table.empty or (table <= 0).any(axis=None):
        return ""
    return str(np.log(table).mean().idxmin())


def strip_key(rows: list[Verdict]) -> dict[str, str]:
    """The colours of all strips by resource."""
    return {part.resource: part.colour for row in rows for phase in row.phases for part in phase.parts}
