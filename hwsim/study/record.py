"""run.json: what was run, with which software, on which cards, and how it went."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hwsim.study.cases import Plan, software
from hwsim.study.results import card_data
from hwsim.study.store import Summary
from hwsim.study.targets import Target

PACKAGES = ("hwsim", "numpy", "pandas", "pyarrow", "torch")
GIT_S = 5.0


def run_record(plan: Plan, summary: Summary, cached: int, started: datetime, seconds: float) -> dict[str, Any]:
    """The record of one run; ``cached`` cases were stored before it."""
    counts = {"ok": summary.ok, "failed": summary.failed, "cached": cached, "left_out": plan.left_out}
    return {
        "study": plan.study.file.model_dump(mode="json", exclude_none=True),
        "file": plan.study.path,
        "folder": str(plan.study.folder.resolve()),
        "settings": list(plan.study.settings),
        "counts": {"cases": len(plan.cases), **counts},
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(seconds, 3),
        "versions": {"python": platform.python_version(), **_versions()},
        "software": software(),
        "git": _git(Path(__file__).parent),
        "host": {"name": platform.node(), "platform": platform.platform(), "cpus": os.cpu_count()},
        "models": {
            name: {"identity": model.identity, "phases": list(model.phases)}
            for name, model in zip(plan.names, plan.models, strict=True)
        },
        "unmodelled": dict(summary.unmodelled),
        "systems": {target.label: _system(target) for target in plan.targets},
    }


def _system(target: Target) -> dict[str, Any]:
    """The main device's card, the other devices', and how the study asked for them."""
    others = {name: card_data(card) for name, card in list(target.cards.items())[1:]}
    return {"asked": target.asked, **card_data(target.card), "others": others}


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """The commit of the repository that the code lies in, None outside of one."""
    try:
        commit = _output(folder, "rev-parse", "HEAD")
        return {"commit": commit, "changed": bool(_output(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _output(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=GIT_S, check=True).stdout.strip()
