"""What ends a simulated run: worn out, full, refused; and collection and padding, which keep it going."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from drives import CACHED, CALM, SPACE, small, table
from hypothesis import given
from hypothesis import strategies as st

from hwsim.devices.storage.analytic import analyse
from hwsim.devices.storage.drive import Cache, Mechanics
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.report import report
from hwsim.devices.storage.simulate import simulate
from hwsim.devices.storage.state import K, M, N
from hwsim.devices.storage.things import Bl, Block, Gr, Log
from hwsim.errors import CheckFailed, InputError


class TestWhatEndsARun:
    def test_a_drive_wears_out(self) -> None:
        with pytest.raises(CheckFailed, match="worn out after"):
            simulate(small(endurance=3.0), Load("randwrite", 4096, 4, number_ios=50_000))

    def test_a_drive_without_spare_blocks_is_full(self) -> None:
        with pytest.raises(CheckFailed, match=r"is full after .* over-provisioning of 0.0%"):
            simulate(small(over_provisioning=0.0), Load("randwrite", 4096, 4, number_ios=50_000))

    @CALM
    @given(
        reserve=st.integers(0, 8),
        victims=st.integers(1, 10),
        start=st.sampled_from([0.0, 0.1, 0.3]),
        static=st.booleans(),
        policy=st.sampled_from(["greedy", "random-greedy", "cost-benefit", "fifo"]),
        first=st.booleans(),
        depth=st.integers(1, 32),
    )
    def test_collection_never_takes_the_blocks_that_it_needs(
        self, reserve: int, victims: int, start: float, static: bool, policy: str, first: bool, depth: int
    ) -> None:
        """Spare blocks beyond those that are kept: writes never end, however many blocks are emptied at once."""
        how = {"reserve": reserve, "victims": victims, "start": start, "static": static, "policy": policy}
        mechanics = Mechanics(collection_first=first)
        drive = small(blocks=48, over_provisioning=0.4, cache=CACHED, mechanics=mechanics, **how)
        outcome = simulate(drive, Load("randwrite", 4096, depth, number_ios=6000, precondition="steady"))
        assert len(outcome.log) == 6000
        s, whole = outcome.state, int(outcome.state[K.BLOCK_SLOTS])
        groups = table(s, K.GROUPS_AT, Gr.SIZE, int(s[K.GROUPS]))
        blocks = table(s, K.BLOCKS_AT, Bl.SIZE, len(groups) * int(s[K.BLOCKS])).reshape(len(groups), -1, Bl.SIZE)
        to_move = np.where(blocks[:, :, Bl.STATE] == Block.VICTIM, blocks[:, :, Bl.VALID], 0).sum(axis=1)
        assert (to_move < groups[:, Gr.FREE] * whole + whole - groups[:, Gr.GC_USED]).all()

    @pytest.mark.parametrize("depth", [1, 2, 16])
    @pytest.mark.parametrize("bs", [12288, 65536])
    def test_writes_of_the_table_do_not_pile_up(self, depth: int, bs: int) -> None:
        """A mapping cache of eight entries: nearly every write lets a changed one leave."""
        drive = small(mapping_cache=72, chips=1, channels=1, planes=1, dies=2, blocks=64)
        outcome = simulate(drive, Load("randwrite", bs, depth, number_ios=2000))
        assert len(outcome.log) == 2000
        pages = outcome.state[K.LPNS] // outcome.state[K.MAP_COVER] + 1
        assert 0 < outcome.count(N.MAP_PROGRAMS) <= outcome.count(N.MAP_WRITES)
        assert outcome.state[outcome.state[K.MAP_WRITE_AT] :][: int(pages)].max() <= 1

    def test_what_gave_way_to_reads_goes_on_though_collection_comes_first(self) -> None:
        """A read interrupts a program, then a victim keeps further reads waiting: neither waits for the other."""
        drive = small(
            suspend_programs=True, suspend=5e-6, blocks=48, cache=CACHED, mechanics=Mechanics(collection_first=True)
        )
        load = Load("randrw", 4096, 64, rwmixread=30, number_ios=20_000, precondition="steady")
        outcome = simulate(drive, load)
        assert len(outcome.log) == 20_000
        assert outcome.count(N.SUSPENSIONS) > 100

    @pytest.mark.parametrize("count", [1, 10, 200])
    def test_nothing_works_longer_than_a_short_run(self, count: int) -> None:
        """The write cache answers long before the flash has taken what it holds."""
        outcome = simulate(small(cache=CACHED), Load("write", 4096, 32, number_ios=count))
        assert max(outcome.utilisation().values()) <= 1 + 1e-9

    @pytest.mark.parametrize(("rw", "underway"), [("randwrite", 65536), ("randrw", 65536), ("rw", 0)])
    @pytest.mark.parametrize("static", [True, False])
    def test_rows_that_hold_up_the_write_cache_are_padded(self, rw: str, underway: int, static: bool) -> None:
        """Half a row in each of 16 groups is more than may be on its way; reads of what was never written add to it."""
        drive = small(
            dies=2, planes=2, bits=3, one_shot=True, pages=24, reads=(5e-5,), static=static, mapping_unit=2048,
            cache=Cache(2**20, 1e9, 1e-7, underway), mechanics=Mechanics(unwritten_reads=True),
        )  # fmt: skip
        outcome = simulate(drive, Load(rw, 4096, 8, number_ios=3000, precondition="none"))  # type: ignore[arg-type]
        assert len(outcome.log) == 3000
        open_rows = table(outcome.state, K.GROUPS_AT, Gr.SIZE, int(outcome.state[K.GROUPS]))[:, Gr.USER_USED]
        assert outcome.state[M.BUFFER] >= (open_rows % outcome.state[K.ROW_SLOTS]).sum()

    @pytest.mark.parametrize("precondition", ["none", "fill", "steady"])
    @pytest.mark.parametrize(
        "change",
        [
            {"blocks": 1},
            {"blocks": 3},
            {"pages": 1},
            {"over_provisioning": 0.0},
            {"over_provisioning": 0.999},
            {"reserve": 2000},
            {"start": 1.0},
            {"endurance": 1.0},
            {"endurance": 2.0},
            {"retry_rate": 0.5, "retry": 1.0, "uncorrectable_rate": 0.5},
            {"erase": 0.0},
            {"levelling": 1},
            {"channels": 62},
        ],
        ids=str,
    )
    def test_nasty_drives_end_with_an_answer_or_a_sentence(self, change: dict[str, float], precondition: str) -> None:
        load = Load("randrw", 4096, 16, number_ios=3000, precondition=precondition)  # type: ignore[arg-type]
        drive = small(**change)
        try:
            found = report(simulate(drive, load), load, analyse(drive, load))
        except (CheckFailed, InputError) as error:
            assert "\n" not in str(error)
            assert any(word in str(error) for word in ("is full", "is worn out", "larger than"))
        else:
            assert 0 < found["iops"] < np.inf and 0 < found["analytic"]["iops"] < np.inf

    def test_pages_that_cannot_be_read_are_errors_of_their_requests(self) -> None:
        drive = small(uncorrectable_rate=0.01, retry_rate=0.1, retry=100e-6)
        outcome = simulate(drive, Load("randread", 4096, 8, number_ios=20_000, size=SPACE))
        failed = int((outcome.log[:, Log.OP] >> 8 > 0).sum())
        assert failed == outcome.count(N.UNCORRECTABLE) == pytest.approx(200, rel=0.3)
        assert outcome.count(N.RETRIES) == pytest.approx(2000, rel=0.1)

    def test_absurd_sizes_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(InputError, match="more than 62 channels"):
            simulate(small(channels=63), Load("randread", 4096, 1))
        huge = small(blocks=2**40)
        assert simulate(huge, Load("randwrite", 4096, 4, number_ios=100)).scale < 1e-3
        monkeypatch.setattr("hwsim.devices.storage.build.MOST_WORDS", 10**5)
        with pytest.raises(InputError, match="too large to simulate"):
            simulate(huge, Load("randwrite", 4096, 4, number_ios=100))

    @pytest.mark.parametrize(
        ("field", "value"), [("bs", 1000), ("iodepth", 0), ("numjobs", 10**6), ("rwmixread", 101), ("size", 512)]
    )
    def test_loads_that_make_no_sense(self, field: str, value: int) -> None:
        with pytest.raises(InputError, match=f"--{field}|--iodepth"):
            simulate(small(), replace(Load("randread", 4096), **{field: value}))  # type: ignore[arg-type]
