"""Plug-ins come from entry points, data files from the package; both by name."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hwsim import registry
from hwsim.errors import PluginError, UnknownNameError


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points that the registry sees, to be filled by a test."""
    entries: list[EntryPoint] = []
    monkeypatch.setattr(registry, "entry_points", lambda group: [entry for entry in entries if entry.group == group])
    return entries


def test_our_own_rooms_are_plug_ins() -> None:
    assert {"gpu", "cpu", "roofline"} <= set(registry.plugins("hwsim.devices"))
    assert {"eager", "fused", "auto"} <= set(registry.plugins("hwsim.mappers"))
    assert {"llama", "vit"} <= set(registry.plugins("hwsim.models"))


def test_a_plug_in_is_imported_on_demand(offered: list[EntryPoint]) -> None:
    offered.append(EntryPoint("path", "pathlib:Path", "hwsim.devices"))
    offered.append(EntryPoint("broken", "no_such_module_here:X", "hwsim.devices"))
    assert registry.load_plugin("hwsim.devices", "path") is Path
    with pytest.raises(PluginError, match=r"'broken' from .*no_such_module_here:X.* does not load"):
        registry.load_plugin("hwsim.devices", "broken")


def test_a_missing_attribute_is_a_plug_in_error(offered: list[EntryPoint]) -> None:
    offered.append(EntryPoint("x", "pathlib:NoSuchClass", "hwsim.mappers"))
    with pytest.raises(PluginError, match="NoSuchClass"):
        registry.load_plugin("hwsim.mappers", "x")


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown device 'gpuu'; did you mean 'gpu'"):
        registry.load_plugin("hwsim.devices", "gpuu")


def test_a_name_taken_twice_is_an_error(offered: list[EntryPoint]) -> None:
    offered.append(EntryPoint("gpu", "pathlib:Path", "hwsim.devices"))
    offered.append(EntryPoint("gpu", "pathlib:PurePath", "hwsim.devices"))
    with pytest.raises(PluginError, match=r"two are called 'gpu'.*pathlib:Path.*pathlib:PurePath"):
        registry.plugins("hwsim.devices")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package with cards in two folders."""
    cards = tmp_path / "sample_package" / "cards"
    (cards / "old").mkdir(parents=True)
    (tmp_path / "sample_package" / "__init__.py").touch()
    for name in ("b.yaml", "a.yaml", "notes.txt", "old/c.yaml"):
        (cards / name).touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sample_package", raising=False)
    return "sample_package"


def test_data_files_are_found_below_a_folder(package: str) -> None:
    found = registry.data_files(package, "cards")
    assert list(found) == ["a", "b", "c"]
    assert found["c"].read_bytes() == b""
    assert list(registry.data_files(package, "cards", ".txt")) == ["notes"]
    assert registry.data_files(package, "nowhere") == {}


def test_two_files_of_one_name_are_an_error(package: str, tmp_path: Path) -> None:
    (tmp_path / package / "cards" / "old" / "a.yaml").touch()
    with pytest.raises(PluginError, match=r"two files are called 'a.yaml'"):
        registry.data_files(package, "cards")
