"""The floors of the house: the core imports no room, rooms only what lies below them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("devices", "kernels", "mappers", "models", "studies")
# What each room may import of hwsim's other rooms (the core is open to all).
BELOW = {"kernels": set(), "devices": set(), "mappers": set(), "models": {"kernels"}}


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def rooms_in(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("hwsim.") and name.split(".")[1] in ROOMS}


def core_files() -> list[Path]:
    return [path for path in (ROOT / "hwsim").rglob("*.py") if path.relative_to(ROOT / "hwsim").parts[0] not in ROOMS]


@pytest.mark.parametrize("path", core_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_no_room(path):
    assert rooms_in(path) == set()


@pytest.mark.parametrize("room", BELOW)
def test_rooms_import_only_what_lies_below(room):
    for path in (ROOT / room).rglob("*.py"):
        assert rooms_in(path) - {room} <= BELOW[room], path


def test_graphs_know_no_device_and_devices_no_model():
    """One way: graph and work below cards and devices; neither imports the other's side."""
    for name in ("graph", "work", "sizes", "dtypes", "fold", "liveness"):
        assert not {n for n in imported(ROOT / "hwsim" / f"{name}.py") if n.startswith(("hwsim.device", "hwsim.card"))}
    for name in ("device", "card", "cost"):
        names = imported(ROOT / "hwsim" / f"{name}.py")
        assert not {
            n for n in names if n.startswith(("hwsim.zoo", "hwsim.capture", "hwsim.frontends", "hwsim.simulation"))
        }
