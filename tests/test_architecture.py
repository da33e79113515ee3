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


MACHINE_CODE = {"compiled", "inlined", "entry"}


def compiled_functions(tree: ast.Module) -> list[ast.FunctionDef]:
    """Those with a decorator of `MACHINE_CODE`, and those that it is called with."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    given = {a.id for call in calls if names_of(call.func) & MACHINE_CODE for a in call.args if isinstance(a, ast.Name)}
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return [f for f in functions if f.name in given or any(names_of(d) & MACHINE_CODE for d in f.decorator_list)]


def names_of(tree: ast.AST) -> set[str]:
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}


def test_compiled_functions_name_nothing_of_other_folders():
    """Else what is kept of them would outlive what they are made of (see hwsim.compiled)."""
    found = 0
    for path in (path for room in ("hwsim", *ROOMS) for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(path.read_text())
        package = ".".join(["hwsim", *path.relative_to(ROOT).parent.parts]).replace("hwsim.hwsim", "hwsim")
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        foreign = {
            alias.asname or alias.name
            for node in imports
            for alias in node.names
            if node.module.startswith("hwsim.") and package not in (node.module, node.module.rpartition(".")[0])
        }
        for function in compiled_functions(tree):
            found += 1
            assert not foreign & set().union(*map(names_of, function.body)), (path, function.name)
    assert found > 200
