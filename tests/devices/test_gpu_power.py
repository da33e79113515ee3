"""Power of the GPU family: which energies fall with the chip's clock, and what the limit leaves of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwsim.device import Replay, load_device
from hwsim.devices.gpu import Gpu
from hwsim.devices.gpu.power import LOWEST_CLOCK, Drawn, Power
from hwsim.kernel_spec import spec_kernel

H200 = Gpu(load_device("nvidia-h200", calibration=None).card)
POWER = Power(H200.card, H200.chip)
SPARE = 700 - 122  # W above the static power
TIMES, ENERGIES = st.floats(1e-6, 1e-2), st.floats(0.0, 20.0)


def drawn(
    seconds: float, stalled: float = 0.0, working: float = 0.0, inside: float = 0.0, outside: float = 0.0
) -> Drawn:
    return Drawn(*(np.array([value]) for value in (seconds, stalled, working, inside, outside)))


def joules(**spec: object) -> float:
    replayed = H200.timed(Replay())
    return replayed.estimate(spec_kernel(spec, replayed)).joules


def test_on_the_chip_the_clock_is_the_cube_root_of_the_power_that_there_is():
    """joules f^2 = spare x seconds / f: eight times the power, half the clock, a quarter of the energy."""
    settled = POWER.settled(drawn(1.0, inside=8 * SPARE))
    assert settled.clock[0] == pytest.approx(0.5, rel=1e-5)
    assert settled.seconds[0] == pytest.approx(2.0, rel=1e-5)
    assert settled.joules[0] == pytest.approx(2 * SPARE, rel=1e-5)


def test_bytes_of_main_memory_cost_the_same_at_any_clock():
    settled = POWER.settled(drawn(1.0, stalled=1.0, inside=2 * SPARE, outside=0.5 * SPARE))
    # the rest of the limit is left to the chip: 2 f^2 = 0.5
    assert settled.clock[0] == pytest.approx(0.5, rel=1e-5)
    assert settled.joules[0] - 0.5 * SPARE == pytest.approx(2 * SPARE * 0.5**2, rel=1e-4)
    assert settled.seconds[0] == 1.0  # nothing waits for the chip


def test_main_memory_hides_the_chip_only_while_it_takes_longer():
    settled = POWER.settled(drawn(1.0, stalled=1.0, working=0.8, inside=4 * SPARE))
    # 4 f^2 = 0.8 / f once the chip is the slower one
    assert settled.clock[0] == pytest.approx(0.2 ** (1 / 3), rel=1e-5)
    assert settled.seconds[0] == pytest.approx(0.8 / 0.2 ** (1 / 3), rel=1e-5)


def test_a_memory_that_draws_more_than_the_limit_alone_is_slowed_down():
    settled = POWER.settled(drawn(1.0, stalled=1.0, outside=3 * SPARE))
    assert settled.clock[0] == pytest.approx(LOWEST_CLOCK)
    assert settled.seconds[0] == pytest.approx(3.0)


@settings(max_examples=200)
@given(st.lists(st.tuples(TIMES, st.floats(0, 1), st.floats(0, 1), ENERGIES, ENERGIES), min_size=1, max_size=4))
def test_nothing_settles_above_the_limit_or_before_its_time_at_full_clock(parts):
    columns = np.array(parts).T
    each = Drawn(columns[0], columns[0] * columns[1], columns[0] * columns[2], columns[3], columns[4])
    counts = np.ones(len(parts))
    for settled, total in ((POWER.settled(each), np.asarray), (POWER.settled(each, counts), np.sum)):
        assert np.all(total(settled.joules) <= SPARE * total(settled.seconds) * (1 + 1e-4))
        assert np.all(settled.seconds >= each.seconds * (1 - 1e-12))
        assert np.all(settled.joules <= (each.inside + each.outside) * (1 + 1e-12))


def test_lanes_that_move_integers_cost_what_those_of_floats_do():
    """The same rows of 4 KiB, as words and as fp32: the same instructions."""
    words = joules(op="gather_rows", rows=4096, row_bytes=4096, table_bytes=2**30)
    floats = joules(op="embedding", vocab=2**18, dim=1024, tokens=4096, dtype="fp32")
    assert words == pytest.approx(floats, rel=0.01)


def test_slots_that_wait_for_the_first_cache_take_time_but_no_energy():
    rough, whole = (joules(op="copy_d2d", bytes=size) for size in (2**24 + 1, 2**24))
    # 14 instructions of a lane and byte at half an FMA of 2 x 5.8 pJ each, over the few of whole vectors
    assert rough - whole == pytest.approx(2**24 * 14 * 5.8e-12, rel=0.1)


def test_a_transpose_of_few_rows_finds_sectors_in_the_first_cache():
    """Of 2 rows lanes use each sector 16 times, of 4,096 once."""
    few, many = (H200.estimate(spec_kernel({"op": "transpose_copy", "rows": rows, "cols": 2**23 // rows,
                                            "dtype": "bf16"}, H200)) for rows in (2, 4096))  # fmt: skip
    assert many.traffic["l2"] > 8 * few.traffic["l2"]
    assert few.traffic["l2"] >= 2 * 2 * 2**23
