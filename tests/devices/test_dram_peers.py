"""The DRAM simulator beside public ones on the same loads: rows of tests/oracle; nothing was fitted to any of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from hwsim.devices.dram.card import load_dram, read_dram
from hwsim.devices.dram.simulate import Question, simulate

ORACLE = Path(__file__).parents[1] / "oracle"
RAMULATOR = list(csv.DictReader(line for line in (ORACLE / "dram_ramulator.csv").open() if not line.startswith("#")))
DRAMSIM3 = json.loads((ORACLE / "dram_dramsim3.json").read_text("utf-8"))["runs"]
PUBLISHED = {  # Ramulator 2.1 as others measured it: stream, linear, 2R:1W streams, random, stream without refresh
    "hbm2": (0.880, 0.807, 0.603, 0.302, 0.984),
    "hbm3": (0.868, 0.507, 0.469, 0.293, 0.976),
    "ddr4-3200": (0.946, 0.615, 0.737, 0.434, 0.995),
    "ddr5-4800": (0.917, 0.876, 0.686, 0.611, 1.001),
    "ddr5-6400": (0.916, 0.838, 0.613, 0.458, 1.000),
    "lpddr5-6400": (0.897, 0.792, 0.602, 0.437, 0.979),
    "gddr6-14000": (0.874, 0.566, 0.432, 0.166, 0.960),
}
UNLOADED = {
    "hbm2": 44.5, "hbm3": 48.6, "ddr4-3200": 44.6, "ddr5-4800": 45.2, "ddr5-6400": 45.1, "lpddr5-6400": 63.4,
    "gddr6-14000": 49.6,
}  # fmt: skip
RUN = ("configuration", "pattern", "read_share")
NO_REFRESH = {"refresh": "none"}


def within(row: dict[str, str]) -> float:
    """Streams 2 % without and 5 % with refresh, mixes 15 %, random reads 10 %."""
    if float(row["read_share"]) < 1:
        return 0.15
    return 0.10 if row["pattern"] == "random" else 0.02 if row["refresh"] == "none" else 0.05


@pytest.mark.parametrize("row", RAMULATOR, ids=lambda row: "-".join(list(row.values())[:6]))
def test_ramulator_on_the_same_loads(row: dict[str, str]) -> None:
    controller = {
        "read_queue": int(row["depth"]),
        "write_queue": int(row["write_depth"]),
        "refresh": row["refresh"],
    }
    question = Question(
        row["pattern"],  # type: ignore[arg-type]
        20_000,
        read_share=float(row["read_share"]),
        controller=controller,
    )
    answer = simulate(load_dram(row["card"]), question)
    assert answer.fraction == pytest.approx(float(row["fraction"]), rel=within(row))
    assert answer.latency["mean"] * 1e9 == pytest.approx(float(row["latency_ns"]), rel=0.05, abs=1.0)


def test_most_rows_agree_far_closer() -> None:
    """The mechanics are the same; what is left is how the last requests are counted."""
    off = []
    for row in RAMULATOR:
        if float(row["read_share"]) == 1 and row["pattern"] == "random":
            controller = {"read_queue": int(row["depth"]), "write_queue": int(row["write_depth"])}
            answer = simulate(load_dram(row["card"]), Question("random", 20_000, controller=controller))
            off.append(abs(answer.fraction / float(row["fraction"]) - 1))
    assert len(off) >= 18 and max(off) < 0.01


@pytest.mark.parametrize("name", PUBLISHED)
def test_ramulator_as_published(name: str) -> None:
    card, (stream, linear, mixed, random, calm) = load_dram(name), PUBLISHED[name]
    assert simulate(card, Question("stream")).fraction == pytest.approx(stream, rel=0.05)
    assert simulate(card, Question("stream", controller=NO_REFRESH)).fraction == pytest.approx(calm, rel=0.02)
    assert simulate(card, Question("linear")).fraction == pytest.approx(linear, rel=0.05)
    assert simulate(card, Question("stream", read_share=2 / 3)).fraction == pytest.approx(mixed, rel=0.15)
    assert simulate(card, Question("random")).fraction == pytest.approx(random, rel=0.10)
    chase = simulate(card, Question("chase", 3000, controller=NO_REFRESH))
    assert chase.latency["mean"] * 1e9 == pytest.approx(UNLOADED[name], abs=3)


@pytest.mark.parametrize(("depth", "fraction"), [(8, 0.189), (32, 0.289)])
def test_random_reads_by_depth_as_published(depth: int, fraction: float) -> None:
    answer = simulate(load_dram("hbm3"), Question("random", controller={"read_queue": depth}))
    assert answer.fraction == pytest.approx(fraction, rel=0.03)


@pytest.mark.parametrize(
    "run", DRAMSIM3, ids=lambda run: f"{run['configuration']}-{run['pattern']}-{run['read_share']}"
)
def test_dramsim3_energy(run: dict[str, object]) -> None:
    """From the same currents: each event to 3 %, standby as far as the bandwidths differ, the whole to 10 %."""
    controller = {"mapping": run["mapping"], "scheduler": "frfcfs-hits"}
    question = Question(run["pattern"], 60_000, read_share=run["read_share"], controller=controller)  # type: ignore[arg-type]
    answer = simulate(read_dram(str(run["card"])), question)
    theirs = run["picojoules_per_bit"]
    assert isinstance(theirs, dict) and answer.energy is not None
    ours = {part: joules / answer.bytes / 8 * 1e12 for part, joules in answer.energy.items()}
    assert sum(ours.values()) == pytest.approx(sum(theirs.values()), rel=0.10)
    for part, name in (("activate", "act"), ("read", "read"), ("write", "write")):
        assert ours[part] == pytest.approx(theirs[name], rel=0.03, abs=0.02)
