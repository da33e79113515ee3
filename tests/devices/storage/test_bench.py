"""`hwsim storage bench`: fio's words and shape, traces, formulas beside the simulation."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import numpy as np
import pytest
from drives import small
from hypothesis import given
from hypothesis import strategies as st

from hwsim.cli import main
from hwsim.devices.storage.analytic import analyse
from hwsim.devices.storage.bench import bench, changes
from hwsim.devices.storage.build import Span
from hwsim.devices.storage.drive import Cache, Mechanics
from hwsim.devices.storage.load import Load
from hwsim.devices.storage.report import report
from hwsim.devices.storage.simulate import folded, simulate
from hwsim.devices.storage.trace import read_trace
from hwsim.errors import InputError

TRACE = """Timestamp,Hostname,DiskNumber,Type,Offset,Size,ResponseTime
128166372003061629,hm,1,Read,383496192,32768,113736
128166372003062629,hm,1,Write,2822144,65536,5000
128166372003061629,hm,1,Read,4097,1,20
"""


def test_the_answer_has_fio_s_shape() -> None:
    found = bench("samsung-980-pro", {"rw": "randrw", "rwmixread": 70, "iodepth": 8, "number_ios": 2000, "size": 2**24})
    (job,) = found["jobs"]
    assert job["read"]["total_ios"] + job["write"]["total_ios"] == 1400
    assert job["read"]["total_ios"] == pytest.approx(980, rel=0.1)
    for side in (job["read"], job["write"]):
        percentiles = list(side["clat_ns"]["percentile"].values())
        assert percentiles == sorted(percentiles)
        assert side["clat_ns"]["min"] <= percentiles[0] <= percentiles[-1] <= side["clat_ns"]["max"]
        assert side["bw_bytes"] == pytest.approx(side["iops"] * 4096)
    assert found["iops"] == pytest.approx(job["read"]["iops"] + job["write"]["iops"])
    assert found["iops"] * found["lat_mean_s"] == pytest.approx(8, rel=0.03)  # Little's law
    assert found["energy"]["total_j"] == pytest.approx(
        sum(value for name, value in found["energy"].items() if name.endswith("_j") and name != "total_j")
    )


def test_the_command_prints_both_forms(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["storage", "bench", "samsung-980-pro", "--rw", "randread", "--bs", "4k", "--iodepth", "4"]
    assert main([*words, "--number_ios", "1000"]) == 0
    text = capsys.readouterr().out
    for word in ("read: IOPS=", "clat percentiles (usec):", "99.00th=[", "busy:", "by formulas:", "energy:"):
        assert word in text
    assert main([*words, "--number_ios", "1000", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["analytic"]["difference"] < 0.1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--bs", "0"], "--bs"),
        (["--bs", "nan"], "not a"),
        (["--iodepth", "0"], "--iodepth"),
        (["--rw", "sideways"], "sideways"),
        (["--runtime", "-3"], "--runtime"),
        (["--number_ios", "10", "--runtime", "1"], "not both"),
        (["--set", "nand.channels"], "PATH=VALUE"),
        (["--set", "nand.chanels=3"], "channels"),
        (["--size", "1k"], "--size"),
        (["--replay", "nowhere.csv"], "nowhere.csv"),
        (["--size", "100t"], "--size: got 109951162777600, expected at most"),
    ],
)
def test_wrong_words_are_told(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["storage", "bench", "samsung-980-pro", *words]) == 2
    assert message in capsys.readouterr().err


def test_settings_are_read_as_yaml() -> None:
    assert changes(["nand.channels=16", "bus.bandwidth=2.4 GB/s", "mechanics.chip_serial=true"]) == {
        "nand.channels": 16,
        "bus.bandwidth": "2.4 GB/s",
        "mechanics.chip_serial": True,
    }


class TestTraces:
    def test_times_offsets_and_sizes(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(TRACE)
        trace = read_trace(tmp_path / "t.csv")
        assert trace.stream.tolist() == [
            [0, 383496192, 32768, 0],
            [0, 4096, 512, 0],
            [1, 2822144, 65536, 1000 * 1000],
        ]
        assert trace.measured.tolist() == pytest.approx([0.0113736, 2e-6, 5e-4])

    def test_requests_come_at_their_times(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(TRACE)
        found = bench("samsung-980-pro", {"iodepth": 4}, replay=tmp_path / "t.csv")
        assert found["number_ios"] == 3 and found["rw"] == "replay"
        assert found["runtime_s"] == pytest.approx(100e-6, rel=0.3)
        assert found["measured_lat_mean_s"] == pytest.approx((0.0113736 + 2e-6 + 5e-4) / 3)

    def test_idle_days_are_simulated_like_idle_microseconds(self, tmp_path: Path) -> None:
        """Three reads five hours apart and one after a week: each is alone, and takes as long as the first."""
        lines = [f"{hours * 36 * 10**9},h,0,Read,0,4096,1" for hours in (0, 5, 10, 24 * 7)]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        found = bench("samsung-980-pro", {"iodepth": 4}, replay=tmp_path / "t.csv")
        times = found["jobs"][0]["read"]["lat_ns"]
        assert found["runtime_s"] == pytest.approx(7 * 24 * 3600, abs=1e-3)
        assert times["max"] == pytest.approx(times["min"], rel=0.01)

    def test_a_drive_that_waits_takes_idle_power(self, tmp_path: Path) -> None:
        """One read an hour: 35 mW x 10 hours, and next to nothing for the reads; power while it works is 3.6 W more."""
        lines = [f"{hours * 36 * 10**9},h,0,Read,0,4096,1" for hours in range(11)]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        found = bench("samsung-980-pro", {"iodepth": 4}, replay=tmp_path / "t.csv")["energy"]
        assert found["total_j"] == pytest.approx(0.035 * 36000, rel=1e-4)
        busy = bench("samsung-980-pro", {"iodepth": 4, "number_ios": 2000})
        assert busy["energy"]["active_j"] == pytest.approx(3.6 * busy["runtime_s"], rel=1e-3)

    def test_no_trace_is_longer_than_the_clock(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(f"0,h,0,Read,0,4096,1\n{2**62},h,0,Read,0,4096,1\n")
        with pytest.raises(InputError, match=r"Timestamp: got 4\.61e\+11 s, expected at most"):
            read_trace(tmp_path / "t.csv")

    def test_addresses_beyond_the_drive_wrap_and_are_counted(self, tmp_path: Path) -> None:
        lines = [f"{100 + index},h,0,Read,{offset},512,1" for index, offset in enumerate((0, 2**50, 2**50 + 512))]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        assert bench("samsung-980-pro", {"iodepth": 4}, replay=tmp_path / "t.csv")["wrapped"] == 2

    @given(
        span=st.integers(512, 2**20),
        requests=st.lists(st.tuples(st.integers(0, 2**40), st.integers(1, 2048)), min_size=1, max_size=20),
    )
    def test_wrapped_requests_lie_within_the_drive(self, span: int, requests: list[tuple[int, int]]) -> None:
        """Also where what is simulated is no whole number of sectors."""
        stream = np.array([[0, 512 * offset, 512 * size, 0] for offset, size in requests], np.int64)
        found = folded(stream, Span(span, 1, 1, False, True))
        assert (found[:, 1] % 512 == 0).all()
        assert (found[:, 1] + found[:, 2] <= span).all()
        inside = stream[:, 1] + stream[:, 2] <= span // 512 * 512
        assert np.array_equal(found[inside], stream[inside])

    def test_waiting_for_a_place_in_the_queue_is_submission_latency(self, tmp_path: Path) -> None:
        lines = [f"{100 + index},h,0,Read,{index * 4096},4096,1" for index in range(8)]
        (tmp_path / "t.csv").write_text("\n".join(lines))
        found = bench("samsung-980-pro", {"iodepth": 1}, replay=tmp_path / "t.csv")
        side = found["jobs"][0]["read"]
        assert side["slat_ns"]["max"] == pytest.approx(7 * side["clat_ns"]["mean"], rel=0.05)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("1,h,0,Raed,0,4096,1", ":2: Type: got 'Raed', expected Read or Write"),
            ("x,h,0,Read,0,4096,1", ":2: Timestamp: got 'x'"),
            ("1,h,0,Read,-4,4096,1", ":2: Offset: got '-4'"),
            ("1,h,0,Read,0,0,1", ":2: Size: got '0'"),
            ("1,h,0,Read", ":2: got 4 fields"),
        ],
    )
    def test_what_is_wrong_is_told_with_line_and_field(self, line: str, message: str, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_text(TRACE.splitlines()[1] + "\n" + line + "\n")
        with pytest.raises(InputError) as caught:
            read_trace(tmp_path / "t.csv")
        assert message in str(caught.value)


class TestFormulas:
    @pytest.mark.parametrize(("rw", "bs"), [("randread", 4096), ("read", 4096), ("randwrite", 4096), ("write", 4096)])
    @pytest.mark.parametrize("depth", [1, 8, 64])
    def test_they_stay_near_the_simulation(self, rw: str, bs: int, depth: int) -> None:
        drive = small(planes=1, blocks=1024, mechanics=Mechanics())
        load = Load(rw, bs, depth, number_ios=4000, size=2**19)  # type: ignore[arg-type]
        answer = analyse(drive, load)
        simulated = report(simulate(drive, load), load, answer)
        assert answer.iops == pytest.approx(simulated["iops"], rel=0.02 if depth == 1 else 0.2)
        assert simulated["analytic"]["difference"] == pytest.approx(answer.iops / simulated["iops"] - 1)

    @pytest.mark.parametrize(("spare", "reserve"), [(0.3, 2), (0.3, 6), (0.15, 2)])
    def test_amplification_of_greedy_collection(self, spare: float, reserve: int) -> None:
        """The fixed point is for blocks collected in order: greedy collection of small blocks does a little better.

        Blocks that collection keeps count: with six of 64 instead of two, both amplify more.
        """
        cache = Cache(2**20, 1e9, 1e-7, 0)
        drive = small(blocks=64, pages=32, over_provisioning=spare, cache=cache, start=0.1, reserve=reserve)
        load = Load("randwrite", 4096, 8, number_ios=20_000, precondition="steady")
        waf = report(simulate(drive, load), load, None)["flash"]["write_amplification_steady"]
        formula = analyse(drive, load).write_amplification
        assert 0.8 * formula < waf < 1.02 * formula

    def test_the_fixed_point_of_amplification(self) -> None:
        """r (1 - x) = -ln x, with r of 64 blocks less 2 kept and 2 half open ones, over 70 % of them."""
        drive = small(blocks=64, over_provisioning=0.3)
        valid = 1 - 1 / analyse(drive, Load("randwrite", 4096, precondition="steady")).write_amplification
        assert 61 / 64 / 0.7 * (1 - valid) == pytest.approx(-log(valid), rel=1e-9)

    @pytest.mark.parametrize("name", ["samsung-980-pro", "daisyplus-openssd", "apple-m1-max", "mqsim-default"])
    def test_the_steady_state_of_shipped_drives(self, name: str) -> None:
        """Formulas know what the busiest dies have to do, not that writes and collection wait for each other."""
        found = bench(name, {"rw": "randwrite", "iodepth": 32, "precondition": "steady"})
        formula = found["analytic"]["write_amplification"]
        assert found["flash"]["write_amplification_steady"] == pytest.approx(formula, rel=0.12)
        assert -0.1 < found["analytic"]["difference"] < 0.6
        assert found["simulated_blocks"] < 0.3

    def test_a_steady_state_is_steady(self) -> None:
        """Twenty thousand requests find the drive as a hundred thousand leave it."""
        question = {"rw": "randwrite", "iodepth": 32, "precondition": "steady"}
        short, long = (bench("mqsim-default", {**question, "number_ios": count}) for count in (20_000, 100_000))
        assert short["flash"]["write_amplification"] == pytest.approx(long["flash"]["write_amplification"], rel=0.05)
        assert short["iops"] == pytest.approx(long["iops"], rel=0.1)

    def test_writes_in_order_collect_what_random_ones_left(self) -> None:
        found = bench("samsung-980-pro", {"rw": "write", "bs": 2**17, "iodepth": 32, "precondition": "steady"})
        assert found["flash"]["write_amplification_steady"] > 3
        assert abs(found["analytic"]["difference"]) < 0.3

    @pytest.mark.parametrize(("rw", "bs", "depth"), [("read", 2**17, 1), ("read", 2**17, 8), ("read", 4096, 32)])
    @pytest.mark.parametrize("name", ["samsung-980-pro", "daisyplus-openssd", "apple-m1-max"])
    def test_data_in_order_lie_in_rows(self, name: str, rw: str, bs: int, depth: int) -> None:
        """Few requests in flight meet on few dies: without that the formulas were up to four times too fast."""
        found = bench(name, {"rw": rw, "bs": bs, "iodepth": depth, "number_ios": 3000})
        assert abs(found["analytic"]["difference"]) < 0.35

    @pytest.mark.parametrize("count", [1000, 20_000, 60_000])
    def test_the_write_cache_takes_what_it_has_room_for(self, count: int) -> None:
        """64 MiB: a thousand writes never wait for the flash, sixty thousand mostly do."""
        found = bench("samsung-980-pro", {"rw": "randwrite", "iodepth": 32, "number_ios": count, "size": 2**32})
        assert abs(found["analytic"]["difference"]) < 0.1
