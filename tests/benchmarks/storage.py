"""How many page operations a second: `python tests/benchmarks/storage.py [REQUESTS] [CARD]`. Nothing is asserted.

Seconds are of the processor, on one core; what compiling and preparing take is left out. A page operation is a page
that is read, or a mapping unit that is programmed.
"""

import sys
from dataclasses import replace
from time import process_time

import numpy as np

from hwsim.devices.storage.build import build
from hwsim.devices.storage.card import load_drive
from hwsim.devices.storage.drive import Cache, Drive
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.run import run
from hwsim.devices.storage.simulate import prepare, spanned
from hwsim.devices.storage.state import M, N, words


def rate(drive: Drive, load: Load) -> tuple[float, float]:
    """Page operations and requests a second."""
    span, size, _ = spanned(drive, load)
    state = build(drive, load.stream(size), span, load.depth)
    prepare(drive, state, load.prepared(drive), size)
    state[M.STOP] = load.count
    started = process_time()
    run(words(state))
    seconds = process_time() - started
    operations = int(state[N.READS] + np.int64(state[N.PROGRAMMED_SLOTS]))
    return operations / seconds, load.count / seconds


def main() -> None:
    """Time some loads."""
    count, card = int(sys.argv[1]) if len(sys.argv) > 1 else 500_000, sys.argv[2] if len(sys.argv) > 2 else None
    uncached = replace(load_drive("mqsim-default"), cache=Cache(0, 0.0, 0.0, 0))
    uncached = replace(uncached, ftl=replace(uncached.ftl, mapping_cache=0))
    drives = [load_drive(card)] if card else [load_drive("samsung-980-pro"), load_drive("samsung-sz985"), uncached]
    size = 2**30
    for drive in drives:
        for load in (
            Load("randread", 4096, 32, number_ios=count, size=size),
            Load("randread", 4096, 256, number_ios=count, size=size),
            Load("read", 131072, 32, number_ios=count // 8, size=size),
            Load("randwrite", 4096, 32, number_ios=count, size=size),
            Load("randrw", 4096, 32, number_ios=count, size=size),
        ):
            rate(drive, replace(load, number_ios=100))
            operations, requests = rate(drive, load)
            what = f"{drive.name}, {load.rw}, {load.bs} B, depth {load.depth}"
            print(f"{operations / 1e6:8.2f} million page operations a second, {requests / 1e6:.2f} of requests: {what}")


if __name__ == "__main__":
    main()
