"""Compiled code is kept for as long as no file of its folder changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
from constants import STEP
from hwsim.compiled import compiled

@compiled
def add(number):
    return number + STEP

print(add(1), add.py_func(1), sum(add.stats.cache_hits.values()))
"""


def ran(folder: Path) -> str:
    return subprocess.run([sys.executable, "code_of.py"], cwd=folder, capture_output=True, text=True, check=True).stdout


def kept(folder: Path) -> set[str]:
    return {file.name for file in folder.rglob("*.nb?")}


def test_a_constant_of_another_file_is_not_that_of_the_last_run(tmp_path: Path) -> None:
    (tmp_path / "code_of.py").write_text(CODE)
    (tmp_path / "constants.py").write_text("STEP = 1\n")
    assert ran(tmp_path) == "2 2 0\n"
    assert ran(tmp_path) == "2 2 1\n"
    (tmp_path / "constants.py").write_text("STEP = 20\n")
    assert ran(tmp_path) == "21 21 0\n"
    assert ran(tmp_path) == "21 21 1\n"


def test_a_new_version_takes_the_place_of_the_old(tmp_path: Path) -> None:
    """Also where lines move and functions get other names; an index and one signature make two files."""
    versions = [kept(tmp_path)]
    (tmp_path / "constants.py").write_text("STEP = 1\n")
    for code in (CODE, f"\n# moved\n{CODE}", CODE.replace("add", "plus")):
        (tmp_path / "code_of.py").write_text(code)
        ran(tmp_path)
        versions.append(kept(tmp_path))
        assert len(versions[-1]) == 2
        assert not versions[-1] & versions[-2]


def test_functions_keep_their_names() -> None:
    from hwsim.events.fast import advance

    assert advance.__qualname__ == "advance"
