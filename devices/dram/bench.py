"""What `hwsim dram` and the memories of devices ask for, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hwsim.devices.dram.card import dram_names, load_dram
from hwsim.devices.dram.effective import behind as behind
from hwsim.devices.dram.layout import COMMANDS
from hwsim.devices.dram.schema import DramFile
from hwsim.devices.dram.simulate import Answer, Question, simulate
from hwsim.figures import figure_rows


def bench(card: str, question: Mapping[str, Any], progress: Callable[[float], None] | None = None) -> dict[str, Any]:
    """Simulate a load on the DRAM card of that name or file; every figure of the answer in SI units.

    ``question`` has the fields of `Question`.
    """
    answer = simulate(load_dram(card), Question(**question), progress)
    return as_data(answer)


def as_data(answer: Answer) -> dict[str, Any]:
    """An answer as numbers and texts by name."""
    card, question = answer.card, answer.question
    total = sum(answer.energy.values()) if answer.energy else None
    return {
        "card": card.name,
        "standard": card.standard,
        "pattern": question.pattern,
        "size_bytes": card.burst_bytes if question.size is None else question.size,
        "read_share": question.read_share,
        "channels": question.channels,
        "depth": answer.controller.read_queue,
        "outstanding": question.outstanding,
        "seed": question.seed,
        **{name: value for name, value in answer.controller.model_dump().items() if name != "read_queue"},
        "requests": question.requests,
        "seconds": answer.seconds,
        "bytes": answer.bytes,
        "bandwidth_bytes_per_s": answer.bandwidth,
        "peak_bytes_per_s": answer.peak,
        "fraction_of_peak": answer.fraction,
        **{f"latency_{name}_s": value for name, value in answer.latency.items()},
        **_rows(answer),
        "commands": {name: answer.counters[name] for name in COMMANDS},
        "energy_j": total,
        "energy_parts_j": answer.energy,
        "energy_j_per_bit": None if total is None else total / (8 * answer.bytes),
        "analytic_bandwidth_bytes_per_s": answer.estimate.bandwidth,
        "analytic_latency_s": answer.estimate.latency,
        "analytic_bound": answer.estimate.bound,
        "analytic_difference": answer.difference,
    }


def _rows(answer: Answer) -> dict[str, int]:
    names = {"hits": "row_hits", "misses": "row_misses", "conflicts": "row_conflicts", "forwarded": "forwarded",
             "merged": "merged"}  # fmt: skip
    return {told: answer.counters[name] for name, told in names.items()}


def cards() -> list[dict[str, Any]]:
    """The cards that ship: what they are and what their pins move."""
    return [
        {
            "name": card.name,
            "title": card.title,
            "channels": card.organization["channels"],
            "capacity_bytes": card.capacity,
            "bandwidth_bytes_per_s": card.bandwidth,
            "burst_bytes": card.burst_bytes,
        }
        for card in map(load_dram, dram_names())
    ]


def show(name: str) -> dict[str, Any]:
    """The card of that name or file with the mark and source of every figure."""
    card = load_dram(name)
    return {
        "dram": card.name,
        "title": card.title,
        "standard": card.standard,
        "figures": figure_rows(card.figures, card.sources),
    }


def schema() -> dict[str, Any]:
    """The JSON Schema of a DRAM card."""
    from hwsim.study.schema import json_schema

    return json_schema(DramFile, "hwsim dram")
