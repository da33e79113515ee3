"""Results made by hand, so that every figure can be checked with pencil and paper."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from hwsim.card import Card
from hwsim.device import load_device
from hwsim.study.results import card_data

KINDS = ("matmul", "attention", "norm", "copy")
GB = 1e9


@dataclass(frozen=True)
class Stored:
    """Frames and cards as a results folder holds them."""

    cases: pd.DataFrame
    kernels: pd.DataFrame
    cards: dict[str, Card]

    def write(self, folder: Path, **study: Any) -> Path:
        """A results folder; without kernels.parquet where there are no kernels."""
        folder.mkdir(parents=True, exist_ok=True)
        self.cases.to_parquet(folder / "cases.parquet")
        if len(self.kernels):
            self.kernels.to_parquet(folder / "kernels.parquet")
        record = {
            "study": {"study": "by-hand", **study},
            "seconds": 1.5,
            "versions": {"hwsim": "0.1.0"},
            "host": {"name": "here", "platform": "Linux"},
            "systems": {label: card_data(card) for label, card in self.cards.items()},
        }
        (folder / "run.json").write_text(json.dumps(record), "utf-8")
        return folder


def case_row(number: int, model: str, device: str, phase: str, batch: int, prompt: int, **more: Any) -> dict[str, Any]:
    """A case that takes a millisecond per sequence and holds 16 GB of weights and 1 MB of state per token."""
    seconds = 1e-3 * batch
    return {
        "case": number,
        "key": f"{number:08x}",
        "model": model,
        "device": device,
        "card": device,
        "mapper": "auto",
        "phase": phase,
        "batch": batch,
        "prompt": prompt,
        "generate": 128,
        "dtype": "bf16",
        "spill": False,
        "status": "ok",
        "error": None,
        "latency_s": seconds,
        "energy_j": 300 * seconds,
        "tokens_per_s": batch / seconds,
        "bandwidth_bytes_per_s": 2e12,
        "peak_memory_bytes": 16 * GB + 1e6 * batch * prompt,
        "flops": 1e12,
        "traffic_bytes": 1e9,
        "bound": "hbm",
        "weight_bytes": 16 * GB,
        "buffer_bytes": 0.0,
        "state_bytes": 1e6 * batch * prompt,
        "activation_bytes": 1e6,
        "integration_error": 0.0,
        "first_form": False,
        "notes": "",
        **more,
    }


def kernel_rows(number: int, phase: str, prompt: int, seconds: float) -> list[dict[str, Any]]:
    """Four kernels: a matmul with half of the time, the others share the rest; norm waits for the host."""
    shares = {"matmul": 0.5, "attention": 0.25, "norm": 0.15, "copy": 0.1}
    rows = []
    for kind in KINDS:
        busy = shares[kind] * seconds
        rows.append(
            {
                "case": number,
                "key": f"{number:08x}",
                "phase": phase,
                "context": prompt,
                "kernel": kind,
                "kind": kind,
                "path": f"layers.0.{kind}",
                "dtype": "bf16",
                "launches": 32.0 if kind != "copy" else 1.0,
                "seconds": busy,
                "busy_seconds": 0.5 * busy if kind == "norm" else busy,
                "dynamic_joules": 1e-3,
                "bound": "matmul" if kind == "matmul" else "hbm",
                "matmul_flops": 1e14 * busy if kind in ("matmul", "attention") else 0.0,
                "vector_flops": 1e12 * busy if kind == "norm" else 0.0,
                "special_ops": 0.0,
                "unmodelled": False,
                "hbm_traffic": 1e12 * busy,
                "l2_traffic": 4e12 * busy,
            }
        )
    return rows


def made(
    models: Sequence[str] = ("llama", "mamba"),
    devices: Sequence[str] = ("nvidia-h200", "sn40l"),
    batches: Sequence[int] = (1, 8),
    prompts: Sequence[int] = (2048, 4096, 8192),
    failing: Sequence[int] = (),
) -> Stored:
    """Decode of every model on every device; the cases of these numbers failed."""
    cases, kernels = [], []
    for model in models:
        for device in devices:
            for batch in batches:
                for prompt in prompts:
                    number = len(cases) + 1
                    row = case_row(number, model, device, "decode", batch, prompt)
                    if number in failing:
                        figures = [name for name in row if name.endswith(("_s", "_j", "bytes")) or name == "flops"]
                        row |= dict.fromkeys(figures) | {"status": "failed", "error": f"{model} does not fit"}
                    else:
                        kernels += kernel_rows(number, "decode", prompt, row["latency_s"])
                    cases.append(row)
    cards = {device: load_device(device).card for device in devices}
    return Stored(pd.DataFrame(cases), pd.DataFrame(kernels), cards)


@pytest.fixture(scope="session")
def stored() -> Stored:
    """Twelve cases per model on two devices, one of which failed."""
    return made(failing=(6,))


@pytest.fixture(scope="session")
def make() -> Callable[..., Stored]:
    """The maker of results, for tests that need others."""
    return made


@pytest.fixture(scope="session")
def renamed() -> Callable[[Stored, str], Stored]:
    """The same results with another name for the first model and its errors."""

    def rename(given: Stored, name: str) -> Stored:
        first = given.cases["model"].iloc[0]
        cases = given.cases.assign(
            model=given.cases["model"].replace(first, name),
            error=given.cases["error"].where(given.cases["status"] == "ok", f"{name} does not fit"),
        )
        kernels = given.kernels.assign(path=name, kernel=name)
        cards = {label: replace(card, title=name) for label, card in given.cards.items()}
        return Stored(cases, kernels, cards)

    return rename
