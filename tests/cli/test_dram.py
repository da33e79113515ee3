"""`hwsim dram bench`: JSON, a table, and errors in one line."""

import json

import pytest

TOY = """
dram: toy
title: a toy
standard: toy
sources: {s: {title: made for tests}}
organization: {mark: assumed, source: s, banks: 8, rows: 64, columns: 64, width: 8, burst_length: 8}
timing:
  {mark: assumed, source: s, tCK: 1 ns, tCL: 4, tCWL: 4, tRCD: 4, tRP: 4, tRAS: 9, tCCD_S: 4, tRRD_S: 2, tFAW: 8,
   tWR: 4, tWTR_S: 4, tRTP: 4, tRFC: 30, tREFI: 1000}
"""


def test_bench_prints_json_and_a_table(hwsim, tmp_path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(TOY)
    options = ("--pattern", "random", "--requests", "2k", "--depth", "8", "--read-share", "75%", "--size", "16B")
    found = hwsim("dram", "bench", str(path), *options, "--json").data
    assert found["requests"] == 2000 and found["depth"] == 8 and found["bytes"] == 2000 * 16
    assert found["fraction_of_peak"] == pytest.approx(found["bandwidth_bytes_per_s"] / found["peak_bytes_per_s"])
    assert found["energy_j"] is None
    assert json.dumps(found)
    ran = hwsim("dram", "bench", "ddr4-3200", "--requests", "2k")
    assert ran.code == 0 and "by formulas" in ran.out and "energy activate" in ran.out


def test_sizes_are_written_as_for_drives(hwsim) -> None:
    sizes = [
        hwsim("dram", "bench", "ddr4-3200", "--requests", "10", "--size", size, "--json").data["size_bytes"]
        for size in ("64k", "64KiB", "65536", "64 kB")
    ]
    assert sizes == [65536, 65536, 65536, 64000]
    assert hwsim("dram", "bench", "ddr4-3200", "--pattern", "stride", "--stride", "64k", "--requests", "10").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hmb3"], "unknown DRAM card 'hmb3'; did you mean 'hbm3'?"),
        (["nowhere.yaml"], "nowhere.yaml: no such file"),
        (["hbm3", "--pattern", "radnom"], "'radnom' is not one of 'stream', 'linear', 'stride', 'random', 'chase'"),
        (["hbm3", "--size", "0"], "size: got 0"),
        (["hbm3", "--size", "64W"], "unknown unit 'W'"),
        (["hbm3", "--read-share", "150%"], "read_share: got 1.5, expected from 0 to 100 %"),
        (["hbm3", "--requests", "many"], "not a count"),
        (["hbm3", "--depth", "0"], "Invalid value for '--depth': got 0, expected from 1 to 4096 places"),
        (["hbm3", "--size", "7"], "size: got 7, expected whole bursts of 32 bytes"),
        (["hbm3", "--mapping", "RoBa"], "not an address mapping"),
        (["hbm3", "--channels", "17"], "expected from 1 to 16"),
        (["ddr4-3200", "--refresh-mode", "per-bank"], "the card has no tRFCpb"),
    ],
)
def test_errors_are_one_line(hwsim, arguments, said):
    ran = hwsim("dram", "bench", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert ran.err.startswith("hwsim: ") and ran.err.count("\n") == 1
    assert ran.out == ""
