"""How blocks fill the units of a GPU: what a card's units hold, by the waves that its kernels take."""

from __future__ import annotations

import numpy as np
import pytest

from hwsim.device import load_device
from hwsim.devices.gpu import Gpu
from hwsim.devices.gpu.blocks import Blocks, grid, spread
from hwsim.devices.gpu.timing import Load
from hwsim.registry import data_files

# CUDA C++ Programming Guide, technical specifications per compute capability: threads, blocks of a unit.
HELD = {
    "turing": (1024, 16), "ampere": (2048, 32), "ada": (1536, 24), "hopper": (2048, 32), "blackwell": (2048, 32),
    "blackwell-workstation": (1536, 24),
}  # fmt: skip
ONE = np.ones(1)
IDLE = Load(*(0.0 * ONE for _ in range(3)), *(ONE for _ in range(3)), *(0.0 * ONE for _ in range(7)))
GPUS = [name for name in data_files("hwsim.devices", "cards") if name.startswith("nvidia-")]


def card(name: str) -> Gpu:
    return Gpu(load_device(name, calibration=None).card)


def waves(gpu: Gpu, blocks: int, threads: int, **sizes: float) -> float:
    """Waves of blocks that live for one microsecond of instructions that follow each other."""
    one = grid(blocks, threads, source_waits=0.0, fetches=0.0, cycles=1e-6 * gpu.chip.clock, **sizes)
    busy = spread(Blocks(*(ONE * size for size in one)), IDLE, gpu.chip).busy
    return float(busy["latency"][0]) / 1e-6


@pytest.mark.parametrize("name", GPUS)
def test_units_hold_the_threads_and_blocks_of_their_compute_capability(name):
    gpu = card(name)
    threads, blocks = (1536, 16) if name == "nvidia-a6000" else HELD[gpu.card.generation]
    assert (gpu.chip.threads, gpu.chip.blocks, gpu.chip.registers) == (threads, blocks, 65536)
    full = gpu.chip.units * threads // 256
    assert waves(gpu, full, 256) == pytest.approx(1)
    assert waves(gpu, full + 1, 256) == pytest.approx(2)
    assert waves(gpu, gpu.chip.units * blocks, 32) == pytest.approx(1)
    assert waves(gpu, gpu.chip.units * blocks + 1, 32) == pytest.approx(2)


def test_registers_leave_room_for_fewer_blocks():
    """1,024 threads of 64 registers are all of 65,536; of 32 two blocks fit."""
    h200 = card("nvidia-h200")
    assert waves(h200, 264, 1024) == pytest.approx(1)
    assert waves(h200, 264, 1024, registers=64) == pytest.approx(2)


@pytest.mark.parametrize("name", GPUS)
def test_warpgroups_are_where_hopper_and_its_successors_have_them(name):
    gpu = card(name)
    assert gpu.chip.warpgroups == (gpu.card.generation in ("hopper", "blackwell"))
