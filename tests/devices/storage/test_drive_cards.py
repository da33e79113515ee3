"""Every shipped drive: a card that reads, figures with value, mark and source, and hand-checkable relations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsim.card import MARKS
from hwsim.cli import main
from hwsim.devices.storage.card import LANES, drive_names, load_drive, read_drive
from hwsim.errors import CardError, UnknownNameError

CARDS = Path(__file__).parents[3] / "devices" / "storage" / "cards"
FILES = sorted(CARDS.glob("*.yaml"))
PAGE = Path(__file__).parents[3] / "docs" / "memory-flash.md"


def figures(node: object, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict) and "value" in node:
        yield path, node
    elif isinstance(node, dict):
        for key, part in node.items():
            yield from figures(part, f"{path}.{key}".lstrip("."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
class TestEveryDrive:
    def test_is_found_by_its_name(self, path: Path) -> None:
        assert load_drive(path.stem).name == path.stem
        assert load_drive(path) == load_drive(path.stem)

    def test_every_figure_has_value_mark_and_source(self, path: Path) -> None:
        data = yaml.safe_load(path.read_text("utf-8"))
        found = dict(figures({key: data[key] for key in data if key != "sources"}))
        assert len(found) >= 40
        for where, figure in found.items():
            assert set(figure) <= {"value", "mark", "source", "note"}, where
            assert figure["mark"] in MARKS, where
            assert figure["mark"] != "derived" or figure.get("note"), where
        assert {figure["source"] for figure in found.values()} == set(data["sources"])
        for source in data["sources"].values():
            assert source["title"] and source["date"] and source["url"].startswith("http")

    def test_channels_and_dies_are_of_one_scale(self, path: Path) -> None:
        drive = load_drive(path.stem)
        assert 0 < drive.ftl.over_provisioning < 0.3
        assert drive.capacity < drive.nand.capacity
        assert drive.nand.erase > max(drive.nand.programs) > max(drive.nand.reads)


def test_all_drives_are_there() -> None:
    assert {
        "samsung-980-pro",
        "samsung-pm9a3",
        "samsung-sz985",
        "samsung-smartssd",
        "inst-csd",
        "daisyplus-openssd",
        "apple-m1-max",
        "apple-m2-ultra",
        "mqsim-default",
    } <= set(drive_names())


def test_the_capacities_are_those_that_are_sold() -> None:
    for name, nbytes in (("samsung-980-pro", 2e12), ("samsung-pm9a3", 3.84e12), ("samsung-sz985", 8e11)):
        assert load_drive(name).capacity == pytest.approx(nbytes, rel=2e-3)


def test_the_instinfer_drive_has_eight_channels_of_1_4_gigabytes() -> None:
    drive = load_drive("inst-csd")
    assert drive.nand.channels * drive.bus.bandwidth == pytest.approx(11.2e9)
    assert drive.pcie.lanes * LANES[4] == pytest.approx(drive.pcie.bandwidth)


def test_mqsim_has_its_mechanics_and_others_have_none() -> None:
    on = load_drive("mqsim-default").mechanics
    assert all(getattr(on, name) for name in on.__slots__)
    off = load_drive("samsung-980-pro").mechanics
    assert not any(getattr(off, name) for name in off.__slots__)


def test_the_page_has_a_card_and_names_every_key() -> None:
    text = PAGE.read_text("utf-8")
    example = text.partition("```yaml file=mine.yaml\n")[2].partition("```")[0]
    assert read_drive(example).name == "mine"
    for name in (*drive_names(), *load_drive("mqsim-default").mechanics.__slots__):
        assert f"`{name}`" in text, name


def test_figures_change_by_their_path() -> None:
    changed = load_drive(
        "samsung-980-pro", {"nand.channels": 16, "bus.bandwidth": "2.4 GB/s", "ftl.allocation": "PCWD"}
    )
    assert (changed.nand.channels, changed.bus.bandwidth, changed.ftl.allocation) == (16, 2.4e9, "PCWD")
    assert load_drive("mqsim-default", {"mechanics.chip_serial": False}).mechanics.chip_serial is False
    assert load_drive("samsung-980-pro", {"mechanics.chip_serial": True}).mechanics.chip_serial is True


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nand.channels", 0, "whole number from 1"),
        ("nand.channels", 2.5, "whole number from 1"),
        ("nand.channels", "nan", "not a quantity"),
        ("nand.page", "5000 B", "multiple of 512"),
        ("bus.bandwidth", "0 GB/s", "must be above zero"),
        ("ftl.mapping_unit", "3 KiB", "divides the page"),
        ("ftl.over_provisioning", 1.2, "share from 0"),
        ("ftl.allocation", "CWD", "order of C, W, D and P"),
        ("nand.pages", 1000, "multiple of 3"),
        ("cache.capacity", "4 KiB", "two program commands"),
        ("nand.endurance", 0, "at least 1"),
        ("nand.endurance", "nan", "not a quantity"),
        ("nand.blocks", 0, "whole number from 1"),
        ("nand.codeword", "0 B", "part of the page"),
        ("nand.erase", "1e9 s", "at most 1000 s"),
        ("nand.read.lower", "2000 s", "at most 1000 s"),
        ("bus.bandwidth", "1 B/s", "from 1 MB/s"),
        ("bus.bandwidth", "1e30 B/s", "to 1 EB/s"),
        ("bus.bandwidth", "nan GB/s", "not a"),
        ("cache.bandwidth", 0, "must be above zero"),
        ("ftl.collection.victims", 0, "at least 1"),
        ("ftl.collection.start", 2, "share from 0 to 1"),
        ("ftl.collection.start", -1, "must not be negative"),
        ("pcie.payload", "0 B", "from one byte"),
        ("pcie.overhead", "1e12 B", "at most 4096"),
        ("nvme.read_time", "-1 s", "must not be negative"),
        ("nvme.cores", 0, "whole number from 1"),
        ("energy.active", "nan", "not a quantity"),
        ("energy.idle", "-1 W", "must not be negative"),
        ("nand.chanels", 4, "did you mean 'channels'"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(path: str, value: object, message: str) -> None:
    with pytest.raises(CardError) as caught:
        load_drive("samsung-980-pro", {path: value})
    assert message in str(caught.value)
    assert path in str(caught.value)


def test_an_unknown_drive_has_a_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="samsung-980-pro"):
        load_drive("samsung-980pro")


def test_drives_are_listed_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["storage", "list"], ["list", "drives"]):
        assert main([*words, "--json"]) == 0
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
        assert set(rows) == set(drive_names())
        assert rows["inst-csd"]["flash_bandwidth_bytes_per_s"] == pytest.approx(8 * 1.4e9)
    for words in (["storage", "show", str(FILES[0])], ["show", "mqsim-default"]):
        assert main([*words, "--json"]) == 0
        figures = json.loads(capsys.readouterr().out)["figures"]
        assert len(figures) >= 40 and all(figure["source"] for figure in figures)
    assert main(["storage", "show", "samsung-980-pro"]) == 0
    assert "bus.bandwidth" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "folder"), [("drive", "storage"), ("dram", "dram")])
def test_the_committed_schema_is_fresh_and_cards_name_it(
    name: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this fails: `hwsim schema drive > schemas/drive.schema.json`, and the same for dram."""
    root = Path(__file__).parents[3]
    assert main(["schema", name]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((root / "schemas" / f"{name}.schema.json").read_text("utf-8")) == found
    assert found["properties"][name] and "draft-07" in found["$schema"]
    for file in (root / "devices" / folder / "cards").glob("*.yaml"):
        first = file.read_text("utf-8").partition("\n")[0]
        assert first == f"# yaml-language-server: $schema=../../../schemas/{name}.schema.json", file
