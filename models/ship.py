"""Captures the zoo into `models/captures/`, so that a first estimate needs no torch: `python -m hwsim.models.ship`.

A capture is named by the content of the code that it depends on; one that the code has left behind is replaced.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from hwsim.capture import ZooModel, write_capture
from hwsim.zoo import find_preset, presets

FOLDER = Path(__file__).parent / "captures"


def wanted() -> dict[str, tuple[str, str]]:
    """File name -> preset and phase of every capture that belongs to the zoo as it is."""
    names = {}
    for name, preset in presets().items():
        for phase in preset.phases:
            if phase != "generate":
                names[ZooModel(preset, {}).capture_name(phase)] = (name, phase)
    return names


def ship(folder: Path = FOLDER) -> Iterable[str]:
    """Trace what is missing in ``folder`` and remove what is stale; yields the file names written."""
    names = wanted()
    folder.mkdir(exist_ok=True)
    present = {path.name for path in folder.glob("*.json.gz")}
    for stale in present - names.keys():
        (folder / stale).unlink()
    missing = [(file, *names[file]) for file in names if file not in present]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(_trace, missing, [folder] * len(missing))


def _trace(job: tuple[str, str, str], folder: Path) -> str:
    file, name, phase = job
    write_capture(ZooModel(find_preset(name), {}).trace(phase), folder / file)
    return file


if __name__ == "__main__":
    for done in ship():
        print(done, file=sys.stderr, flush=True)
