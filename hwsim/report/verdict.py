"""The verdict: what binds each model on each device, how close to that roof it runs, and what would move it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from hwsim.card import Card
from hwsim.report.bound_share import bound_shares, is_memory
from hwsim.report.frames import HOST_WAIT, failed, finished, workload_text
from hwsim.report.roofline import rate_of
from hwsim.report.theme import GREY, PALETTE
from hwsim.units import format_quantity, format_seconds

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
    "latency": "fewer, larger kernels (fusion, recorded graphs)",
    HOST_WAIT: "issuing kernels from a recorded graph",
    "power": "fewer joules per byte and FLOP, or a higher power limit",
}


@dataclass(frozen=True, slots=True)
class Part:
    """A share of the time bound by one resource, with its colour in the strip."""

    resource: str
    share: float
    colour: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """One model on one device in words; ``parts`` are shares of the time by binding resource, the largest first."""

    model: str
    device: str
    first_form: bool
    parts: tuple[Part, ...]
    bound: str
    phases: str
    fastest: str
    moves: str
    ok: int
    failed: int


def verdicts(cases: pd.DataFrame, frame: pd.DataFrame, cards: Mapping[str, Card]) -> list[Verdict]:
    """One verdict per model and device in the order of the cases; ``frame`` holds detailed kernels."""
    hues = _hues(frame)
    return [
        _verdict((str(model), str(device)), group, _of_pair(frame, model, device), cards.get(str(device)), hues)
        for (model, device), group in cases.groupby(["model", "device"], sort=False)
    ]


def _of_pair(frame: pd.DataFrame, model: object, device: object) -> pd.DataFrame:
    return frame if frame.empty else frame[(frame["model"] == model) & (frame["device"] == device)]


def _verdict(
    names: tuple[str, str], cases: pd.DataFrame, kernels: pd.DataFrame, card: Card | None, hues: Mapping[str, str]
) -> Verdict:
    done = finished(cases)
    shares = mean_shares(kernels)
    return Verdict(
        model=names[0],
        device=names[1],
        first_form=card is not None and card.first_form,
        parts=tuple(Part(name, share, hues.get(name, GREY)) for name, share in shares.items() if share >= SHOWN),
        bound=_bound(shares, kernels, card),
        phases=_phases(kernels),
        fastest=_fastest(done, cases),
        moves=_moves(shares),
        ok=len(done),
        failed=len(failed(cases)),
    )


def _hues(frame: pd.DataFrame) -> dict[str, str]:
    """A colour per binding resource: memories and links share a family of colours."""
    if frame.empty:
        return dict(HUES)
    memories = [name for name in dict.fromkeys(frame["bound"]) if is_memory(str(name))]
    return HUES | {str(name): MEMORY_HUES[i % len(MEMORY_HUES)] for i, name in enumerate(memories)}


def mean_shares(kernels: pd.DataFrame) -> dict[str, float]:
    """Shares of the time by binding resource, the mean over the cases: a long case counts as much as a short one."""
    if kernels.empty:
        return {}
    tables = [bound_shares(group) for _, group in kernels.groupby("case")]
    names = dict.fromkeys(name for table in tables for name in table)
    mean = {name: sum(table.get(name, 0.0) for table in tables) / len(tables) for name in names}
    return dict(sorted(mean.items(), key=lambda item: -item[1]))


def _bound(shares: Mapping[str, float], kernels: pd.DataFrame, card: Card | None) -> str:
    """Bound by what, for how long, and how close to that roof."""
    if not shares:
        return ""
    name = next(iter(shares))
    close = None if card is None else closeness(name, kernels[kernels["bound"] == name], card)
    roof = "bandwidth" if is_memory(name) else "peak rate"
    near = f", at {close:.0%} of its {roof}" if close is not None else ""
    return f"bound by {name} {shares[name]:.0%} of the time{near}"


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


def _phases(kernels: pd.DataFrame) -> str:
    """What binds each phase, where there are several."""
    if kernels.empty or kernels["phase"].nunique() < 2:
        return ""
    told = []
    for phase, group in kernels.groupby("phase", sort=False):
        shares = mean_shares(group)
        name = next(iter(shares), "")
        told.append(f"{phase}: {name} {shares.get(name, 0.0):.0%}")
    return "; ".join(told)


def _fastest(done: pd.DataFrame, cases: pd.DataFrame) -> str:
    """The case of the highest throughput, or of the least latency where there are no tokens."""
    if done.empty:
        return ""
    rates = pd.to_numeric(done["tokens_per_s"], errors="coerce")
    best = done.loc[rates.idxmax() if rates.notna().any() else done["latency_s"].idxmin()]
    rate = f"{rates[best.name]:,.4g} tokens/s, " if rates.notna().any() else ""
    setting = workload_text(best, cases)
    return f"{rate}{format_seconds(float(best['latency_s']))}{f' at {setting}' if setting else ''}"


def _moves(shares: Mapping[str, float]) -> str:
    """What the largest shares respond to; twice a rate saves at most half of the share that it binds (Amdahl)."""
    told = []
    for name, share in list(shares.items())[:2]:
        if share < 0.1:
            continue
        if name in ADVICE:
            told.append(f"{ADVICE[name]}: at most {share:.0%} less time")
        else:
            what = "bandwidth" if is_memory(name) else "rate"
            told.append(f"twice the {what} of {name}: at most {share / 2:.0%} less time")
    return "; ".join(told)


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
    spilled = [note for note in cases.get("notes", pd.Series(dtype=str)).dropna() if "spilled" in note]
    if spilled:
        yield "Spilled", f"{len(spilled)} cases overflow to the host, such as: {spilled[0]}."


def _unmodelled(frame: pd.DataFrame) -> Iterator[str]:
    for model, group in frame.groupby("model", sort=False):
        rows = group[group["unmodelled"].astype(bool)]
        if len(rows):
            worst = rows.groupby("case")["share"].sum().max()
            yield f"{model}: {', '.join(sorted(set(rows['kernel'])))} (at most {worst:.2%} of a case's time)"


def fastest_of_all(cases: pd.DataFrame) -> str:
    """The headline: which system gives each model its highest throughput or least latency."""
    done = finished(cases)
    if done.empty:
        return "No case has a result."
    told = []
    for model, group in done.groupby("model", sort=False):
        if group["device"].nunique() < 2:
            continue
        rates = pd.to_numeric(group["tokens_per_s"], errors="coerce")
        best = group.loc[rates.idxmax() if rates.notna().any() else group["latency_s"].idxmin()]
        energy = group.loc[(group["energy_j"] / group["batch"]).idxmin()]
        told.append(f"{model} is fastest on {best['device']} and takes the least energy on {energy['device']}")
    return "; ".join(told[:6]) + ("." if told else "")
