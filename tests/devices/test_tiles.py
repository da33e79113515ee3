"""Tiles and waves by hand: a toy GPU of 4 units with tiles of 64 x 64."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwsim.device import load_device
from hwsim.devices.occupancy import Chip
from hwsim.devices.tiles import Product, Tiling, best_plan, plan_of, tile_shapes

H200 = Chip.of(load_device("nvidia-h200").card, warm=False)
CHIP = replace(H200, units=4, tile_m=64, tile_n=64)
SIZES = st.integers(1, 3000)


def product(m: int, n: int, k: int, batch: int = 1) -> Product:
    return Product(batch, m, n, k, element=2.0, rate=1e12)


def test_the_shapes_are_halves_down_to_one_matrix_instruction():
    shapes = tile_shapes(replace(CHIP, tile_n=32))
    assert set(shapes) == {(64, 32), (64, 16), (32, 32), (32, 16), (16, 32), (16, 16), (32, 64), (16, 64)}


def test_as_many_tiles_as_units_take_one_whole_wave():
    """2 x 2 tiles on 4 units: no arithmetic is wasted."""
    plan = plan_of(CHIP, product(128, 128, 512), Tiling(64, 64))
    assert plan.stretch == 1.0
    assert plan.units == 4


def test_one_tile_more_takes_a_second_wave():
    """5 tiles on 4 units: the time of 8."""
    assert plan_of(CHIP, product(320, 64, 512), Tiling(64, 64)).stretch == pytest.approx(8 / 5)


def test_a_partial_tile_costs_a_whole_one():
    """65 rows take two tiles; four units, two of them idle: 4·64·64 of outputs for 65·64."""
    assert plan_of(CHIP, product(65, 64, 512), Tiling(64, 64)).stretch == pytest.approx(4 * 64 / 65)


def test_every_tile_reads_its_rows_and_columns():
    """4 tiles x (64 + 64) x 512 x 2 B, of which each operand once is counted elsewhere."""
    plan = plan_of(CHIP, product(128, 128, 512), Tiling(64, 64))
    assert plan.reread == 4 * 128 * 512 * 2 - 2 * 128 * 512 * 2


def test_slices_of_k_occupy_all_units_and_pay_for_partial_sums():
    """One tile cut in four: a quarter of the time; 4 partial sums of 64 x 64 in fp32 out and in."""
    plan = plan_of(CHIP, product(64, 64, 512), Tiling(64, 64, slices=4))
    assert plan.stretch == 1.0
    assert plan.launches == 2
    assert plan.reread == (4 * 128 * 128 - 128 * 512) * 2 + 2 * 4 * 4 * 64 * 64


def test_operands_that_fit_in_the_cache_come_once_and_larger_ones_again():
    assert plan_of(H200, product(4096, 4096, 4096), Tiling(128, 256)).refetch == 0
    assert plan_of(H200, product(16384, 16384, 16384), Tiling(128, 256)).refetch > 0


def test_a_wave_of_132_tiles_suits_the_h200():
    """12 x 11 tiles of 128 x 256."""
    assert plan_of(H200, product(12 * 128, 11 * 256, 4096), Tiling(128, 256)).stretch == 1.0


@given(m=SIZES, n=SIZES, k=SIZES)
def test_the_best_tiling_wastes_and_never_gains(m, n, k):
    plan = best_plan(H200, product(m, n, k))
    assert plan.stretch >= 1 - 1e-12
    assert 1 <= plan.units <= H200.units
    assert min(plan.reread, plan.refetch) >= 0
