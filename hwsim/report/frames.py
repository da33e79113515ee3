"""The frames that all charts read: cases, kernels with the inputs of their case, samples of many cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd

from hwsim.card import Card
from hwsim.graph import Kind
from hwsim.result import Result

INPUTS = ("phase", "batch", "prompt", "generate", "dtype", "mapper")  # of a case, besides model and device
COUNTS = ("batch", "prompt", "generate")
CATEGORIES: dict[str, tuple[Kind, ...]] = {
    "matmul": (Kind.MATMUL, Kind.CONV),
    "attention": (Kind.ATTENTION,),
    "recurrence": (Kind.RECURRENCE, Kind.SCAN, Kind.FFT),
    "norm": (Kind.NORM, Kind.SOFTMAX, Kind.REDUCE),
    "elementwise": (Kind.ELEMENTWISE, Kind.FILL, Kind.RANDOM),
    "data movement": (Kind.COPY, Kind.WRITE, Kind.GATHER, Kind.SCATTER, Kind.SORT, Kind.VIEW),
    "collective": (Kind.COLLECTIVE,),
    "unmodelled": (Kind.UNKNOWN,),
    "transfer": (),  # steps of schedules, no kind of op
}
TRANSFER = "transfer"
HOST_WAIT = "host wait"  # time in which the device waits for the host
CATEGORY_OF = {str(kind): name for name, kinds in CATEGORIES.items() for kind in kinds} | {TRANSFER: TRANSFER}


def cases_of(results: Iterable[Result]) -> pd.DataFrame:
    """One row per result, as a study stores them."""
    rows = [
        {"case": number, **result.summary(), "status": "ok", "error": ""}
        for number, result in enumerate(results, start=1)
    ]
    return pd.DataFrame(rows)


def kernels_of(results: Iterable[Result]) -> pd.DataFrame:
    """The kernels of all results with the number of their case, as a study stores them."""
    frames = [result.to_frame().assign(case=number) for number, result in enumerate(results, start=1)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def cards_of(results: Iterable[Result]) -> dict[str, Card]:
    """The cards of the results by the name of the device."""
    return {result.device: result.card for result in results}


def finished(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that have a result."""
    return cases[cases["status"] == "ok"] if "status" in cases else cases


def failed(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that have an error instead."""
    return cases[cases["status"] != "ok"] if "status" in cases else cases.iloc[:0]


def detailed(cases: pd.DataFrame, kernels: pd.DataFrame) -> pd.DataFrame:
    """Kernels with model, device and inputs of their case (its phase as ``job``), category, FLOPs and share of time.

    Where steps overlap, in cases with transfers, they are busy for the time that is counted to them, which adds up.
    """
    if kernels.empty or cases.empty:
        return pd.DataFrame()
    wanted = ["case", "model", "device", *(name for name in INPUTS if name in cases)]
    inputs = finished(cases)[wanted].rename(columns={"phase": "job", "dtype": "precision"})
    joined = kernels.merge(inputs, on="case", how="inner")
    traffic = [name for name in joined.columns if name.endswith("_traffic")]
    joined[traffic] = joined[traffic].fillna(0.0)
    joined["category"] = joined["kind"].map(CATEGORY_OF).fillna("unmodelled")
    joined["flops"] = joined["matmul_flops"] + joined["vector_flops"] + joined["special_ops"]
    moving = joined["case"].isin(joined.loc[joined["kind"] == TRANSFER, "case"])
    joined["busy_seconds"] = joined["busy_seconds"].where(~moving, joined["seconds"])
    joined["waiting"] = (joined["seconds"] - joined["busy_seconds"]).clip(lower=0.0)
    total = joined.groupby("case")["seconds"].transform("sum")
    joined["share"] = (joined["seconds"] / total.where(total > 0)).fillna(0.0)
    return joined


def memories_in(kernels: pd.DataFrame) -> list[str]:
    """Names of the memories that the kernels move bytes from or to."""
    return [name.removesuffix("_traffic") for name in kernels.columns if name.endswith("_traffic")]


def spread(cases: pd.DataFrame, limit: int) -> pd.DataFrame:
    """At most ``limit`` cases of each model on each device, evenly over their inputs, the extremes included."""
    by = [name for name in INPUTS if name in cases]
    kept: list[object] = []
    for _, group in cases.groupby(["model", "device"], sort=False):
        ordered = group.sort_values(by)
        count = len(ordered)
        if count > limit:
            ordered = ordered.iloc[sorted({round(i * (count - 1) / max(1, limit - 1)) for i in range(limit)})]
        kept += list(ordered.index)
    return cases.loc[[index for index in cases.index if index in set(kept)]]


def representative(cases: pd.DataFrame) -> pd.DataFrame:
    """One case per model, device and phase: with the inputs that most of these share, of them the largest."""
    if cases.empty:
        return cases
    keyed = cases.assign(_job=rows_of(cases, [name for name in INPUTS if name in cases]))
    pairs = keyed.drop_duplicates(["_job", "model", "device"]).groupby("_job").size()
    keyed["_pairs"] = keyed["_job"].map(pairs)
    keyed["_size"] = keyed["batch"] * (keyed["prompt"] + keyed["generate"])
    ordered = keyed.sort_values(["_pairs", "_size"], ascending=False, kind="stable")
    return cases.loc[ordered.drop_duplicates(["model", "device", "phase"]).index.sort_values()]


def phase_text(job: object, phase: object) -> str:
    """A phase that was executed, with the job that it is a part of."""
    return str(phase) if job == phase else f"{phase} of {job}"


def rows_of(frame: pd.DataFrame, columns: Sequence[str]) -> pd.Series:
    """The values of some columns as one tuple per row."""
    values = list(zip(*(frame[name] for name in columns), strict=True))
    return pd.Series(values, index=frame.index, dtype=object)


def workload_text(row: Mapping[str, object] | pd.Series, among: pd.DataFrame | None = None) -> str:
    """A case's inputs in words; with ``among``, only those that differ there."""
    parts = []
    for name in ("phase", "dtype", "mapper", *COUNTS):
        value = row.get(name)
        constant = among is not None and (name not in among or among[name].nunique(dropna=False) < 2)
        if value is None or constant or (name == "generate" and row.get("phase") != "generate"):
            continue
        parts.append(f"{name} {count_text(value)}" if name in COUNTS else str(value))
    return ", ".join(parts)


def count_text(value: object) -> str:
    """A count as people write it: 2k for 2048 tokens; thin spaces in other large ones."""
    number = int(float(str(value)))
    for size, suffix in ((2**20, "M"), (2**10, "k")):
        if number >= size and number % size == 0:
            return f"{number // size}{suffix}"
    return f"{number:,}".replace(",", "\u2009")


def number_text(value: float) -> str:
    """A plain number with four digits or all before the point: 0.1234, 41,990."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
