"""The rooms at the root are one package: links, lazy public names, and a wheel that carries everything."""

import json
import os
import pkgutil
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import hwsim

ROOT = Path(__file__).parent.parent
ROOMS = ("devices", "kernels", "mappers", "models", "studies")
DATA = (".yaml", ".json", ".csv", ".j2")


def run_python(code: str, cwd: Path, **environment: str) -> str:
    """What a fresh interpreter prints for `code`."""
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_a_relative_link_in_the_package(room: str) -> None:
    link = ROOT / "hwsim" / room
    assert link.is_symlink()
    assert os.readlink(link) == f"../{room}"
    assert (ROOT / room / "__init__.py").is_file()


def test_rooms_are_not_importable_by_their_bare_names(tmp_path: Path) -> None:
    code = f"""
import importlib.util
found = [room for room in {ROOMS!r} if (spec := importlib.util.find_spec(room)) and spec.origin
         and spec.origin.startswith({str(ROOT)!r} + "/" + room)]
print(found)
"""
    assert run_python(code, tmp_path).strip() == "[]"


def test_every_folder_with_code_is_a_package() -> None:
    folders = {file.parent for room in ("hwsim", *ROOMS) for file in (ROOT / room).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_versions_agree() -> None:
    assert hwsim.__version__ == version("hwsim")


def test_import_is_fast_and_loads_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys, time
start = time.perf_counter()
import hwsim
print(time.perf_counter() - start)
print(sorted({"torch", "numpy", "pandas", "plotly", "pydantic", "typer"} & set(sys.modules)))
"""
    seconds, heavy = run_python(code, tmp_path).splitlines()
    assert float(seconds) < 0.1
    assert heavy == "[]"


def test_public_names_are_listed_and_shadow_no_module() -> None:
    assert set(hwsim.__all__) <= set(dir(hwsim))
    modules = {module.name for module in pkgutil.iter_modules(hwsim.__path__)}
    assert not modules & set(hwsim.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hwsim.nothing


def test_rooms_are_banned_as_top_level_imports() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    banned = settings["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert set(banned) == set(ROOMS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a source distribution of a copy of the working tree."""
    top = tmp_path_factory.mktemp("wheel")
    tree = top / "tree"
    leave = shutil.ignore_patterns("__pycache__", "*.pyc")
    for folder in ("hwsim", *ROOMS):
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=leave)
    for file in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / file, tree)
    run_python(f"from setuptools import build_meta; build_meta.build_sdist({str(top)!r})", tree)
    (sdist,) = top.glob("hwsim-*.tar.gz")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(top), str(sdist)], check=True, cwd=top)
    (built,) = top.glob("hwsim-*.whl")
    return built


@pytest.mark.slow
def test_a_wheel_carries_code_and_data_and_imports(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    assert {name.split("/")[0] for name in names} <= {"hwsim", f"hwsim-{hwsim.__version__}.dist-info"}
    assert packaged_names() <= names
    code = """
import json, hwsim, hwsim.devices, hwsim.studies
from hwsim.registry import data_files, plugins
print(json.dumps([hwsim.__file__, sorted(plugins("hwsim.devices")), sorted(data_files("hwsim.devices", "cards"))]))
"""
    place, families, cards = json.loads(run_python(code, tmp_path, PYTHONPATH=str(tmp_path / "site")))
    assert place.startswith(str(tmp_path))
    assert {"cpu", "gpu", "roofline"} <= set(families)
    assert cards == sorted(file.stem for file in (ROOT / "devices" / "cards").rglob("*.yaml"))


def packaged_names() -> set[str]:
    """The names that the code and data files of the package and its rooms have in a wheel."""
    core = {f"hwsim/{file.relative_to(ROOT / 'hwsim')}" for file in packaged(ROOT / "hwsim")}
    return core | {f"hwsim/{file.relative_to(ROOT)}" for room in ROOMS for file in packaged(ROOT / room)}


def packaged(folder: Path) -> list[Path]:
    """Files below a folder, links not followed, that belong in a wheel."""
    return [file for file in folder.rglob("*") if file.suffix in (".py", *DATA) or file.name == "py.typed"]
