"""Every shipped card: plain YAML that parses, figures with value, mark and source, and hand-checkable relations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsim.card import MARKS, CardFile
from hwsim.device import load_device
from hwsim.errors import CardError
from hwsim.units import parse

CARDS = Path(__file__).parents[1] / "devices" / "cards"
FILES = sorted(CARDS.glob("*.yaml"))
EXPECTED = {
    "nvidia-h200",
    "nvidia-h100-sxm",
    "nvidia-a100-80gb",
    "nvidia-a6000",
    "nvidia-rtx-4090",
    "nvidia-a100-pcie",
    "nvidia-h100-pcie",
    "nvidia-l40s",
    "nvidia-l4",
    "nvidia-b200",
    "nvidia-gb200",
    "nvidia-rtx-pro-6000",
    "nvidia-t4",
    "apple-m1-max",
    "amd-epyc-7742",
    "sn40l",
    "qualcomm-sa8295p",
    "samsung-980-pro",
    "inst-csd",
    "rram-40nm-macro",
}
FIRST_FORM = {"sn40l", "qualcomm-sa8295p", "rram-40nm-macro"}
PER_CLOCK = {
    "nvidia-a100-80gb": 2048,
    "nvidia-a100-pcie": 2048,
    "nvidia-h100-sxm": 4096,
    "nvidia-h100-pcie": 4096,
    "nvidia-h200": 4096,
    "nvidia-b200": 8192,
    "nvidia-gb200": 8192,
    "nvidia-a6000": 1024,
    "nvidia-l40s": 1024,
    "nvidia-l4": 1024,
    "nvidia-rtx-pro-6000": 1024,
    "nvidia-rtx-4090": 512,
}
"""Dense bf16 FLOP per SM and clock with fp32 sums, which GeForce boards do at half the rate."""
GPUS = list(PER_CLOCK)
GENERATIONS = {
    "turing": {"nvidia-t4"},
    "ampere": {"nvidia-a100-80gb", "nvidia-a100-pcie", "nvidia-a6000"},
    "ada": {"nvidia-rtx-4090", "nvidia-l40s", "nvidia-l4"},
    "hopper": {"nvidia-h100-sxm", "nvidia-h100-pcie", "nvidia-h200"},
    "blackwell": {"nvidia-b200", "nvidia-gb200"},
    "blackwell-workstation": {"nvidia-rtx-pro-6000"},
}


def card(name: str) -> dict[str, Any]:
    data = yaml.safe_load((CARDS / f"{name}.yaml").read_text("utf-8"))
    assert isinstance(data, dict)
    return data


def figures(node: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """All mappings with a value, by dotted path; every other leaf of the figure blocks is a name or a kind."""
    if isinstance(node, dict) and "value" in node:
        yield path, node
    elif isinstance(node, dict):
        for key, part in node.items():
            yield from figures(part, f"{path}.{key}".lstrip("."))
    elif isinstance(node, list):
        for part in node:
            yield from figures(part, f"{path}.{part['name']}")


def memories(name: str) -> dict[str, dict[str, Any]]:
    return {memory["name"]: memory for memory in card(name)["memories"]}


def si(figure: dict[str, Any], unit: str) -> float:
    return parse(figure["value"], unit)


def dram(name: str) -> dict[str, Any]:
    return next(memory for memory in memories(name).values() if memory["kind"] == "main")


def test_all_cards_are_there() -> None:
    assert {path.stem for path in FILES} >= EXPECTED


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryCard:
    def test_matches_the_schema(self, path: Path) -> None:
        assert CardFile.model_validate(card(path.stem)).card == path.stem

    def test_every_figure_has_value_mark_and_source(self, path: Path) -> None:
        data = card(path.stem)
        found = dict(figures({key: data[key] for key in data if key != "sources"}))
        assert len(found) >= 20
        for where, figure in found.items():
            assert set(figure) <= {"value", "mark", "source", "note"}, where  # a comma in an unquoted note adds keys
            assert figure["mark"] in MARKS, where
            assert figure["source"] in data["sources"], where

    def test_every_source_is_used_and_can_be_found(self, path: Path) -> None:
        data = card(path.stem)
        used = {figure["source"] for _, figure in figures({key: data[key] for key in data if key != "sources"})}
        assert set(data["sources"]) == used
        for source in data["sources"].values():
            own = (CARDS.parents[1] / source["url"]).is_file()  # our measurements and pages
            assert source["title"] and source["date"] and (own or source["url"].startswith("http"))

    def test_what_is_derived_or_assumed_says_how(self, path: Path) -> None:
        data = card(path.stem)
        for where, figure in figures({key: data[key] for key in data if key != "sources"}):
            assert figure["mark"] not in ("derived", "assumed") or figure.get("note") or "fp64" in where, where

    def test_energies_cover_the_rates(self, path: Path) -> None:
        data = card(path.stem)
        for unit in ("matmul", "vector"):
            assert set(data["compute"][unit]) == set(data["energy"][unit])

    def test_memories_grow_and_slow_away_from_the_units(self, path: Path) -> None:
        levels = [memory for memory in card(path.stem)["memories"] if path.stem != "rram-40nm-macro"]
        for near, far in pairwise(levels):
            assert si(near["capacity"], "B") < si(far["capacity"], "B")
            assert si(near["bandwidth"], "B/s") >= si(far["bandwidth"], "B/s")
            assert si(near["latency"], "s") < si(far["latency"], "s")
            assert si(near["read_energy"], "J/B") < si(far["read_energy"], "J/B")

    def test_idle_is_below_the_limit(self, path: Path) -> None:
        power = card(path.stem)["power"]
        assert 0 < si(power["idle"], "W") < si(power["limit"], "W")

    def test_first_form_is_declared(self, path: Path) -> None:
        data = card(path.stem)
        assert data["first_form"] is (data["family"] == "roofline")
        assert data["first_form"] is (path.stem in FIRST_FORM)


def test_tensor_rates_are_dense() -> None:
    """The datasheets of the H100 and H200 print 1,979 TFLOP/s, which is with 2:4 sparsity."""
    for name, bf16 in (
        ("nvidia-h100-sxm", 989.4),
        ("nvidia-h200", 989.4),
        ("nvidia-a100-80gb", 312.0),
        ("nvidia-a6000", 154.8),
        ("nvidia-rtx-4090", 165.2),
    ):
        assert si(card(name)["compute"]["matmul"]["bf16"], "FLOP/s") == pytest.approx(bf16 * 1e12)


@pytest.mark.parametrize("name", GPUS)
class TestGpus:
    def test_units_times_clock_give_the_bf16_peak(self, name: str) -> None:
        compute = card(name)["compute"]
        peak = compute["units"]["value"] * si(compute["clock"], "Hz") * PER_CLOCK[name]
        assert si(compute["matmul"]["bf16"], "FLOP/s") == pytest.approx(peak, rel=2e-3)

    def test_special_functions_are_sixteen_per_unit_and_clock(self, name: str) -> None:
        compute = card(name)["compute"]
        rate = 16 * compute["units"]["value"] * si(compute["clock"], "Hz")
        assert si(compute["special"], "FLOP/s") == pytest.approx(rate, rel=2e-3)

    def test_sustained_streams_stay_below_the_power_limit(self, name: str) -> None:
        """All bytes of the main memory pass the L2 as well."""
        levels, power = list(memories(name).values()), card(name)["power"]
        per_byte = sum(si(level["read_energy"], "J/B") for level in levels)
        watts = si(power["idle"], "W") + si(levels[-1]["bandwidth"], "B/s") * per_byte
        assert watts < si(power["limit"], "W")

    def test_it_names_the_figures_of_its_family(self, name: str) -> None:
        parameters = card(name)["parameters"]
        assert si(parameters["graph_launch_latency"], "s") < si(parameters["launch_latency"], "s")
        assert si(parameters["launch_latency"], "s") < si(parameters["host_launch_overhead"], "s")


def test_every_nvidia_card_names_its_generation() -> None:
    names = {path.stem for path in FILES if path.stem.startswith("nvidia-")}
    assert {name: card(name)["generation"] for name in names} == {
        name: generation for generation, cards in GENERATIONS.items() for name in cards
    }
    assert load_device("nvidia-l4").card.generation == "ada"
    assert load_device("sn40l").card.generation is None


def test_h200_is_an_h100_with_more_memory() -> None:
    h100, h200 = card("nvidia-h100-sxm"), card("nvidia-h200")
    for dtype, figure in h100["compute"]["matmul"].items():
        assert figure["value"] == h200["compute"]["matmul"][dtype]["value"]
    assert si(dram("nvidia-h200")["capacity"], "B") == pytest.approx(141e9)
    assert si(dram("nvidia-h200")["bandwidth"], "B/s") == pytest.approx(4.8e12)


def test_memory_capacities_order_as_the_products_do() -> None:
    sizes = [
        si(dram(name)["capacity"], "B")
        for name in ("nvidia-rtx-4090", "nvidia-a6000", "nvidia-h100-sxm", "nvidia-h200")
    ]
    assert sizes == sorted(sizes)
    assert si(dram("nvidia-a100-80gb")["capacity"], "B") == si(dram("nvidia-h100-sxm")["capacity"], "B")


def test_epyc_peak_is_lanes_times_clock() -> None:
    compute = card("amd-epyc-7742")["compute"]
    assert si(compute["matmul"]["fp32"], "FLOP/s") == pytest.approx(64 * 2 * 8 * 2 * 2.25e9, rel=2e-3)
    assert si(dram("amd-epyc-7742")["bandwidth"], "B/s") == pytest.approx(8 * 3200e6 * 8)


def test_sn40l_takes_table_ii() -> None:
    """Eight sockets: 512 GB of HBM at 14.4 TB/s, 12 TB of DDR at 1.6 TB/s, 5.1 PFLOP/s."""
    levels = memories("sn40l")
    assert 8 * si(levels["hbm"]["capacity"], "B") == pytest.approx(512e9)
    assert 8 * si(levels["hbm"]["bandwidth"], "B/s") == pytest.approx(14.4e12)
    assert 8 * si(levels["ddr"]["capacity"], "B") == pytest.approx(12e12)
    assert 8 * si(levels["ddr"]["bandwidth"], "B/s") == pytest.approx(1.6e12)
    assert 8 * si(card("sn40l")["compute"]["matmul"]["bf16"], "FLOP/s") == pytest.approx(5.1e15, rel=2e-3)
    assert si(levels["sram"]["capacity"], "B") == 1040 * 2**19


def test_drives_hold_models_on_flash() -> None:
    for name in ("samsung-980-pro", "inst-csd"):
        assert not [memory for memory in memories(name).values() if memory["kind"] == "main"]
        nand = memories(name)["nand"]
        assert nand["kind"] == "storage"
        assert si(nand["write_bandwidth"], "B/s") < si(nand["bandwidth"], "B/s")


def test_csd_engine_is_its_dsp_slices() -> None:
    compute = card("inst-csd")["compute"]
    assert si(compute["matmul"]["fp16"], "FLOP/s") == pytest.approx(768 * 285e6 * 2, rel=2e-3)


def test_crossbar_holds_its_cells() -> None:
    assert si(memories("rram-40nm-macro")["rram"]["capacity"], "B") == 512 * 512 / 8


def test_what_a_change_makes_wrong_has_no_line_in_the_card():
    with pytest.raises(CardError) as caught:
        load_device("nvidia-a6000", {"memories.gddr6.bandwidth": "0 GB/s"})
    assert str(caught.value) == "memories.gddr6.bandwidth: must be above zero"


@pytest.mark.parametrize("limit", ["0 W", "1 W", "120 W"])
def test_a_limit_that_leaves_nothing_for_work_is_refused(limit):
    with pytest.raises(CardError, match=r"power\.limit: leaves nothing for work; got .*, expected more than the 122"):
        load_device("nvidia-h200", {"power.limit": limit})


def test_what_is_wrong_without_the_change_is_told_with_its_line(tmp_path):
    text = (CARDS / "nvidia-a6000.yaml").read_text("utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("family: gpu", "family: gpu\nfamly: gpu"))
    with pytest.raises(CardError, match=r"mine\.yaml:\d+:\d+: famly: unknown key"):
        load_device(path, {"memories.gddr6.bandwidth": "1 TB/s"})
