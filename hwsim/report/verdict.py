"""The verdict: what binds each model on each device, how close to that roof it runs, and what would move it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pandas as pd

from hwsim.card import Card
from hwsim.report.bound_share import bound_shares, is_memory
from hwsim.report.frames import HOST_WAIT, failed, finished, workload_text
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
class Verdict:
    """One model on one device in words; ``parts`` are shares of the time by binding resource, the largest first."""

    model: str
    device: str
    first_form: bool
    parts: tuple[Part, ...]
    bound: str
    phases: str
    fastest: str
    setting: str
    moves: tuple[str, ...]
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
        fastest=_fastest(done),
        setting=_setting(done, cases),
        moves=tuple(_moves(shares)),
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
    mean = bound_shares(kernels, ["case"]).mean().sort_values(ascending=False)
    return {str(name): float(share) for name, share in mean.items() if share > 0}


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


def _fastest(done: pd.DataFrame) -> str:
    """The figures of the best case."""
    if done.empty:
        return ""
    rates = pd.to_numeric(done["tokens_per_s"], errors="coerce")
    if rates.notna().any():
        return f"{rates.max():,.4g} tokens/s"
    return format_seconds(float(done["latency_s"].min()))


def _setting(done: pd.DataFrame, cases: pd.DataFrame) -> str:
    """The latency and the inputs of the best case."""
    if done.empty:
        return ""
    best = done.iloc[_best(done)]
    return ", ".join(filter(None, (format_seconds(float(best["latency_s"])), workload_text(best, cases))))


def _moves(shares: Mapping[str, float]) -> Iterator[str]:
    """What the largest shares respond to; twice a rate saves at most half of the share that it binds (Amdahl)."""
    for name, share in list(shares.items())[:2]:
        if share < WORTH:
            continue
        if name in ADVICE:
            yield f"{ADVICE[name]}: −{share:.0%} time"
        else:
            yield f"2× {name} {'bandwidth' if is_memory(name) else 'rate'}: −{share / 2:.0%} time"


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


def _best(done: pd.DataFrame) -> int:
    """The position of the case of the highest throughput, or of the least latency where there are no tokens."""
    rates = pd.to_numeric(done["tokens_per_s"], errors="coerce")
    return int(rates.argmax() if rates.notna().any() else done["latency_s"].argmin())


def headline(cases: pd.DataFrame) -> str:
    """Which system is the fastest and which takes the least energy, models alike in this joined."""
    done = finished(cases)
    if done.empty:
        return "No case has a result."
    alike: dict[tuple[str, str], list[str]] = {}
    for model, group in done.groupby("model", sort=False):
        if group["device"].nunique() > 1:
            frugal = group.iloc[int((group["energy_j"] / group["batch"]).argmin())]
            alike.setdefault((str(group.iloc[_best(group)]["device"]), str(frugal["device"])), []).append(str(model))
    told = []
    for (fast, frugal_device), models in alike.items():
        every = len(alike) == 1 and len(models) > 1
        names = f"all {len(models)} models" if every else ", ".join(models)
        energy = " and takes" if len(models) == 1 else " and take"
        verb = "is" if len(models) == 1 else "are"
        told.append(f"{names} {verb} fastest on {fast}{energy} the least energy per sequence on {frugal_device}")
    text = "; ".join(told[:4])
    return f"{text[:1].upper() if text.startswith('all') else text[:1]}{text[1:]}." if text else ""


def strip_key(rows: list[Verdict]) -> dict[str, str]:
    """The colours of all strips by resource."""
    return {part.resource: part.colour for row in rows for part in row.parts}
