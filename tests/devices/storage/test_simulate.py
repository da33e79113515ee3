"""The simulator of drives: equal to a slow one and to hand-made sums, and bound by laws."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from bisect import insort
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drives import CACHED, CALM, SPACE, rate, small, table
from hypothesis import given
from hypothesis import strategies as st
from slow_drive import Request, SlowDrive

from hwsim.devices.storage.build import Span, build
from hwsim.devices.storage.card import load_drive
from hwsim.devices.storage.drive import Cache, Drive, Mechanics, Nvme
from hwsim.devices.storage.events import next_event, schedule
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.report import report
from hwsim.devices.storage.simulate import Outcome, prepare, simulate, spanned
from hwsim.devices.storage.state import SOURCE_BITS, TICKS, K, M, N, words
from hwsim.devices.storage.things import Bl, Block, Ch, Gr, Log, Op, Pl
from hwsim.devices.storage.trace import Trace

SUPPORT = Path(__file__).parents[2] / "support"


class TestEqualToASlowOne:
    @CALM
    @given(
        depth=st.integers(1, 40),
        seed=st.integers(0, 10**6),
        rw=st.sampled_from(["randread", "read", "randwrite", "write"]),
        dies=st.sampled_from([1, 3]),
        order=st.sampled_from(["CWDP", "PDWC", "WCPD"]),
    )
    def test_to_the_tick(self, depth: int, seed: int, rw: str, dies: int, order: str) -> None:
        drive = small(planes=1, dies=dies, allocation=order, blocks=64, static=True)
        load = Load(rw, 4096, depth, number_ios=150, size=SPACE, seed=seed)  # type: ignore[arg-type]
        outcome = simulate(drive, load)
        requests = [Request(int(op), int(at) // 4096, int(size)) for op, at, size, _ in load.stream(SPACE)]
        slow = SlowDrive(drive, requests, depth)
        assert [(int(row[Log.OP]), int(row[Log.SENT]), int(row[Log.DONE])) for row in outcome.log] == slow.run()

    @pytest.mark.slow
    def test_the_compiled_functions_are_what_python_makes_of_them(self) -> None:
        code = """
from drives import small
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.simulate import simulate
outcome = simulate(small(blocks=12), Load("randrw", 4096, 8, number_ios=600, size=2**20, precondition="none"))
print(int(outcome.state.sum()), int(outcome.log.sum()))
"""
        answers = []
        for disabled in ("0", "1"):
            environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": str(SUPPORT)}
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            answers.append(done.stdout)
        assert answers[0] == answers[1] != ""


class TestHandMadeSums:
    def test_a_lone_read_takes_the_sum_of_its_steps(self) -> None:
        """Doorbell, fetch, command; read command, array, 4 KiB on the bus; data and completion on the link."""
        drive = small()
        outcome = simulate(drive, Load("randread", 4096, 1, number_ios=10, size=SPACE))
        link = [2 + 28, 4 + 28, 64 + 28, 4096 + 32 * 28, 16 + 28]
        expected = sum(link) / 4e9 + 290e-9 + 50e-6 + 4096 / 333e6
        served = (outcome.log[:, Log.DONE] - outcome.log[:, Log.SENT]) / TICKS
        assert served[0] == pytest.approx(expected, rel=1e-5)
        assert served[1:] == pytest.approx(expected + 30 / 4e9, rel=1e-5)  # after the doorbell of the last completion

    def test_many_reads_are_bound_by_the_busiest_resource(self) -> None:
        """4 dies of 290 ns + 50 us + 12.3 us; 2 channels of 290 ns + 12.3 us."""
        outcome = simulate(small(planes=1), Load("randread", 4096, 256, number_ios=20_000, size=SPACE))
        per_die = 290e-9 + 50e-6 + 4096 / 333e6
        assert rate(outcome) == pytest.approx(4 / per_die, rel=0.02)

    def test_cache_reads_overlap_the_array_with_the_bus(self) -> None:
        """An array works while its last page leaves: 4 dies of 290 ns + 50 us remain."""
        outcome = simulate(small(cache_read=True, planes=1), Load("randread", 4096, 256, number_ios=20_000, size=SPACE))
        assert rate(outcome) == pytest.approx(4 / (50e-6 + 290e-9), rel=0.03)

    def test_independent_planes_read_at_the_same_time(self) -> None:
        """8 planes of 62.6 us, but 2 channels of 12.6 us each page."""
        outcome = simulate(small(independent_planes=True), Load("randread", 4096, 512, number_ios=20_000, size=SPACE))
        expected = min(8 / (290e-9 + 50e-6 + 4096 / 333e6), 2 / (290e-9 + 4096 / 333e6))
        assert rate(outcome) == pytest.approx(expected, rel=0.03)

    def test_firmware_cores_bound_the_commands(self) -> None:
        drive = small(nvme=Nvme(1, 1024, 2, 40e-6, 40e-6, 0.0, 0.0))
        outcome = simulate(drive, Load("randread", 4096, 64, number_ios=5_000, size=SPACE))
        assert rate(outcome) == pytest.approx(2 / 40e-6, rel=0.01)

    def test_one_shot_programs_write_the_rows_of_all_planes(self) -> None:
        """A row of 2 planes x 3 pages: 24 KiB per 290... of each of 4 dies."""
        drive = small(bits=3, reads=(50e-6,), one_shot=True, ganged_planes=True, pages=24, cache=CACHED, blocks=64)
        outcome = simulate(drive, Load("write", 24576, 32, number_ios=1000))
        row = 500e-6 + 24576 / 333e6 + 3 * (361e-9 + 816e-9)
        assert rate(outcome) == pytest.approx(4 / row, rel=0.1)
        assert outcome.count(N.PROGRAMS) * 6 == pytest.approx(outcome.count(N.HOST_SLOTS), rel=0.05)

    def test_reads_interrupt_programs(self) -> None:
        """Beside writes, reads wait for whole programs unless these give way."""
        load = Load("randrw", 4096, 4, number_ios=4000, size=SPACE, rwmixread=80)
        slow, fast = (
            simulate(small(suspend_programs=on, suspend=10e-6, suspend_least=50e-6, blocks=64), load)
            for on in (False, True)
        )
        means = [
            float(np.mean((log[:, Log.DONE] - log[:, Log.SENT])[log[:, Log.OP] == 0])) for log in (slow.log, fast.log)
        ]
        assert fast.count(N.SUSPENSIONS) > 0
        assert means[1] < 0.8 * means[0]

    def test_a_program_comes_to_rest_before_the_read_that_interrupts_it(self) -> None:
        """A read 200 us after a write to the only die: its command is sent while the program stops, its array waits."""
        stream = np.array([[Op.WRITE, 0, 4096, 0], [Op.READ, 4096, 4096, 200e-6 * TICKS]], np.int64)
        trace = Trace(stream, np.zeros(2))
        served = []
        for suspend in (0.0, 10e-6):
            drive = small(channels=1, chips=1, planes=1, suspend_programs=True, suspend=suspend, blocks=64)
            outcome = simulate(drive, Load("randrw", 4096, 4, number_ios=2), trace)
            assert outcome.count(N.SUSPENSIONS) == 1
            served.append([int(row[Log.DONE] - row[Log.SENT]) / TICKS for row in outcome.log])
        assert served[1][0] - served[0][0] == pytest.approx(10e-6 - 290e-9, abs=1e-9)
        assert served[1][1] - served[0][1] == pytest.approx(10e-6 - 290e-9, abs=1e-9)

    def test_trims_leave_nothing_to_collect(self) -> None:
        """A trimmed drive moves no page when it is written again; one that is not trimmed does."""
        drive = small(over_provisioning=0.3, blocks=64)
        units = int(drive.capacity) // 4096
        order = np.random.default_rng(1).permutation(units)
        moved, amplified = [], []
        for op in (Op.TRIM, Op.READ):
            stream = np.zeros((2 * units, 4), np.int64)
            stream[:units, 0], stream[units:, 0] = op, Op.WRITE
            stream[:units, 1], stream[units:, 1], stream[:, 2] = np.arange(units) * 4096, order * 4096, 4096
            load = Load("randrw", 4096, 1, number_ios=len(stream), precondition="fill")
            outcome = simulate(drive, load, Trace(stream, np.zeros(len(stream))))
            assert outcome.count(N.TRIMMED) == (units if op == Op.TRIM else 0)
            assert outcome.count(N.HOST_SLOTS) == units
            moved.append(outcome.count(N.GC_SLOTS))
            amplified.append(report(outcome, load, None)["flash"]["write_amplification"])
        assert amplified[0] == 1.0
        assert amplified[1] > 1.05
        assert moved[0] == 0
        assert moved[1] > 0

    def test_programs_of_the_mapping_table_wear_and_cost_energy(self) -> None:
        """Each is one page, and counts beside what the host and collection program."""
        drive = small(mapping_cache=256, blocks=64)
        load = Load("randwrite", 4096, 4, number_ios=2000)
        outcome = simulate(drive, load)
        found = report(outcome, load, None)
        facts = found["flash"]
        table = facts["map_programs"]
        assert 0 < table <= facts["map_writes"]
        extra = facts["write_amplification_with_map"] - facts["write_amplification"]
        assert extra == pytest.approx(table * drive.nand.page / facts["host_write_bytes"])
        programmed = facts["rows_programmed"] + table
        assert found["energy"]["program_j"] == pytest.approx(programmed * drive.energy.program)

    def test_the_write_cache_answers_before_the_flash(self) -> None:
        outcome = simulate(small(cache=CACHED), Load("randwrite", 4096, 1, number_ios=50, size=SPACE))
        served = (outcome.log[:, Log.DONE] - outcome.log[:, Log.SENT]) / TICKS
        assert served.max() < 20e-6


class TestLaws:
    @CALM
    @given(
        rw=st.sampled_from(["randwrite", "randrw", "write", "rw"]),
        blocks=st.sampled_from([1, 2, 5]),
        depth=st.integers(1, 48),
        cached=st.booleans(),
        ganged=st.booleans(),
        policy=st.sampled_from(["greedy", "random-greedy", "cost-benefit", "fifo"]),
        seed=st.integers(0, 10**6),
    )
    def test_bytes_are_conserved_and_the_map_is_a_bijection(
        self, rw: str, blocks: int, depth: int, cached: bool, ganged: bool, policy: str, seed: int
    ) -> None:
        drive = small(cache=CACHED if cached else Cache(0, 0.0, 0.0, 0), ganged_planes=ganged, policy=policy, blocks=24)
        load = Load(rw, 4096 * blocks, depth, number_ios=1500, seed=seed, precondition="none")  # type: ignore[arg-type]
        outcome = simulate(drive, load)
        _check_programmed(outcome)
        _check_map(outcome)
        _check_resources(outcome)

    @pytest.mark.parametrize("name", ["mqsim-default", "samsung-980-pro", "inst-csd", "samsung-sz985"])
    @pytest.mark.parametrize("bs", [4096, 131072])
    def test_requests_lie_within_what_is_simulated(self, name: str, bs: int) -> None:
        for precondition in ("none", "layout", "fill", "steady"):
            load = Load("randwrite", bs, precondition=precondition)  # type: ignore[arg-type]
            span, size, _ = spanned(load_drive(name), load)
            assert bs <= size <= span.nbytes

    def test_same_seed_same_run(self) -> None:
        load = Load("randrw", 4096, 16, number_ios=2000, size=SPACE)
        one, other = (simulate(small(policy="random-greedy"), load) for _ in range(2))
        assert np.array_equal(one.state, other.state)
        assert not np.array_equal(one.log, simulate(small(policy="random-greedy"), replace(load, seed=2)).log)

    @CALM
    @given(seed=st.integers(0, 10**6), depth=st.integers(1, 32))
    def test_more_of_anything_does_not_slow_reads(self, seed: int, depth: int) -> None:
        """Channels, chips and places in the queue; within 2 %, as who waits for whom is a matter of chance."""
        load = Load("randread", 4096, depth, number_ios=3000, size=SPACE, seed=seed)
        drive = small()
        plain = rate(simulate(drive, load))
        assert rate(simulate(small(channels=4), load)) > 0.98 * plain
        assert rate(simulate(small(chips=4), load)) > 0.98 * plain
        assert rate(simulate(drive, replace(load, iodepth=depth + 1))) > 0.98 * plain

    @CALM
    @given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=40, unique=True), st.randoms())
    def test_events_come_in_the_same_order_however_they_were_scheduled(
        self, events: list[tuple[int, int]], chance: random.Random
    ) -> None:
        """Ties go by source, so that equal times have one order; a third are taken in between, as by a sorted list."""
        mixed = list(events)
        chance.shuffle(mixed)
        state = words(build(small(), np.zeros((1, 4), np.int64), Span(SPACE, 16, 8, False, False), 40))
        pending: list[tuple[int, int]] = []
        taken, expected = [], []
        for time, source in mixed:
            schedule(state, time, source)
            insort(pending, (time, source))
            while pending and chance.random() < 0.3:
                taken.append(next_event(state))
                expected.append(pending.pop(0))
        taken += [next_event(state) for _ in pending]
        assert [(key >> SOURCE_BITS, key & (1 << SOURCE_BITS) - 1) for key in taken] == expected + pending

    @pytest.mark.parametrize("seed", [1, 2, 3])
    def test_a_steady_drive_has_the_free_blocks_that_writes_wait_for(self, seed: int) -> None:
        """Also where padding its open rows fills a block (with seeds 1 and 3)."""
        drive = small(blocks=64, pages=24, bits=3, reads=(50e-6,), one_shot=True, ganged_planes=True, cache=CACHED)
        load = Load("randrw", 4096, 16, number_ios=1000, precondition="steady", seed=seed)
        span, size, _ = spanned(drive, load)
        state = build(drive, load.stream(size), span, load.depth, seed=seed)
        prepare(drive, state, "steady", size)
        groups = table(state, K.GROUPS_AT, Gr.SIZE, int(state[K.GROUPS]))
        assert (groups[:, Gr.FREE] >= state[K.GC_STOP]).all()

    def test_wear_is_levelled(self) -> None:
        """A part of the drive that is never written again does not keep its blocks young."""
        load = Load("randwrite", 4096, 4, number_ios=30_000, size=2**19, precondition="fill")
        spreads = []
        for levelling in (0, 4):
            outcome = simulate(small(blocks=64, levelling=levelling, over_provisioning=0.3), load)
            groups = int(outcome.state[K.GROUPS])
            blocks = table(outcome.state, K.BLOCKS_AT, Bl.SIZE, groups * int(outcome.state[K.BLOCKS]))
            erases = blocks[:, Bl.ERASES].reshape(groups, -1)
            spreads.append(float((erases.max(axis=1) - erases.min(axis=1)).mean()))
        assert spreads[1] < 0.6 * spreads[0]


def _check_programmed(outcome: Outcome) -> None:
    """What hosts wrote, what was collected and padding make what was programmed and what still waits in the cache."""
    state, count = outcome.state, outcome.count
    slots = int(state[K.ROW_SLOTS])
    groups = table(state, K.GROUPS_AT, Gr.SIZE, int(state[K.GROUPS]))
    open_slots = int((groups[:, Gr.GC_USED] % slots).sum())
    underway = int(state[M.BUFFER]) if state[K.BUFFERED] else 0
    moved = count(N.HOST_SLOTS) + count(N.GC_SLOTS)
    rows = table(state, K.BLOCKS_AT, Bl.SIZE, len(groups) * int(state[K.BLOCKS]))[:, Bl.PENDING].sum()
    programmed = count(N.PROGRAMMED_SLOTS)
    assert programmed <= moved <= programmed + underway + open_slots + int(rows) * slots
    assert count(N.PROGRAMS) * slots >= programmed


def _check_map(outcome: Outcome) -> None:
    """Each unit has one slot, each valid slot one unit, and blocks know how many."""
    state = outcome.state
    lpns, block_slots = int(state[K.LPNS]), int(state[K.BLOCK_SLOTS])
    count = int(state[K.GROUPS] * state[K.BLOCKS])
    l2p = state[state[K.L2P_AT] :][:lpns]
    p2l = state[state[K.P2L_AT] :][: count * block_slots]
    written = np.flatnonzero(l2p)
    assert np.array_equal(p2l[l2p[written] - 1], written + 1)
    assert np.count_nonzero(p2l) == len(written)
    blocks = table(state, K.BLOCKS_AT, Bl.SIZE, count)
    valid = np.count_nonzero(p2l.reshape(count, block_slots), axis=1)
    assert np.array_equal(blocks[:, Bl.VALID], valid[blocks[:, Bl.SLOT] // block_slots])
    assert np.array_equal(np.sort(blocks[:, Bl.SLOT]), np.arange(count) * block_slots)
    groups = table(state, K.GROUPS_AT, Gr.SIZE, int(state[K.GROUPS]))
    free = (blocks[:, Bl.STATE] == Block.FREE).reshape(len(groups), -1).sum(axis=1)
    assert np.array_equal(free, groups[:, Gr.FREE])


def _check_resources(outcome: Outcome) -> None:
    """No resource is ever above its bandwidth or in two places."""
    state, ticks = outcome.state, outcome.seconds * TICKS
    slack = 1 + 1e-9
    assert all(0 <= share <= slack for share in outcome.utilisation().values())
    channels = table(state, K.CHANNELS_AT, Ch.SIZE, int(state[K.CHANNELS]))
    assert (channels[:, Ch.BYTES] <= ticks / TICKS * outcome.drive.bus.bandwidth * slack).all()
    planes = table(state, K.PLANES_AT, Pl.SIZE, outcome.drive.groups * outcome.drive.width)
    per_die = planes[:, Pl.TICKS].reshape(-1, outcome.drive.nand.planes)
    longest = max(*outcome.drive.nand.programs, outcome.drive.nand.erase) * TICKS
    assert (per_die.sum(axis=1) <= ticks + longest).all()


def test_a_drive_of_whole_chips_is_one_of_single_dies() -> None:
    """With chips that take one command at a time, dies add nothing (so in MQSim)."""
    load = Load("randread", 4096, 32, number_ios=3000, size=SPACE)
    one: Drive = small(dies=1, planes=1, mechanics=Mechanics(chip_serial=True))
    many: Drive = small(dies=4, planes=1, mechanics=Mechanics(chip_serial=True))
    assert rate(simulate(many, load)) == pytest.approx(rate(simulate(one, load)), rel=0.03)
    assert rate(simulate(small(dies=4, planes=1), load)) > 1.5 * rate(simulate(one, load))
