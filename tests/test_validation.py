"""Measurement files are read strictly; errors are what arithmetic says; nothing measured is dropped in silence."""

from __future__ import annotations

import math
import re

import pytest
from toys import toy_device

from hwsim.cli import main
from hwsim.device import Replay, load_device, plain_roofline
from hwsim.errors import InputError
from hwsim.kernel_spec import spec_kernel
from hwsim.measurements import measurement_names, read_measurements, split_rows
from hwsim.report.accuracy import accuracy_page
from hwsim.residual import Corrected, Residual
from hwsim.validation import Comparison, Predictors, compare_measurements, error_table, uncovered, worst_rows

HEAD = "# device: made up\nop,spec,seconds_cold,seconds_warm,joules_warm\n"
ADD = '{""op"":""add"",""numel"":1000000,""dtype"":""fp32""}'


def written(tmp_path, *rows):
    path = tmp_path / "rows.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


def predictors(device):
    return Predictors(device, device, plain_roofline(device.card))


def test_errors_by_hand(tmp_path):
    """12 MB at 1 TB/s take 12 us: measured as 24 us, the error is a half."""
    device = toy_device(tmp_path)
    file = read_measurements(written(tmp_path, f'add,"{ADD}",24e-6,,'))
    (row,) = compare_measurements(file, predictors(device))
    assert row.predicted == pytest.approx(12e-6)
    table = error_table([row])
    assert list(table["predicted_mape"]) == [pytest.approx(0.5)]
    assert list(table["rows"]) == [1]


def test_what_cannot_be_predicted_is_counted(tmp_path):
    device = toy_device(tmp_path)
    file = read_measurements(
        written(tmp_path, f'add,"{ADD}",24e-6,,', 'copy_peer,"{""op"":""copy_peer"",""bytes"":8}",1e-6,,')
    )
    found = compare_measurements(file, predictors(device))
    assert uncovered(file, found) == {"copy_peer": 1}


def test_the_worst_rows_are_those_furthest_in_ratio():
    rows = [
        Comparison("f", "op", str(ratio), "warm", "seconds", 1.0, ratio, 1.0, 1.0, "hbm")
        for ratio in (1.1, 0.2, 3.0, 0.9)
    ]
    assert [row.predicted for row in worst_rows(rows, 2)] == [0.2, 3.0]
    assert abs(math.log(0.2)) > abs(math.log(3.0))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no rows"),
        ("# only a header\n", "no rows"),
        ("op,spec\nadd,{}\n", "seconds_cold"),
        (HEAD + "add,not json,1,1,1\n", ":3"),
        (HEAD + f'add,"{ADD}",fast,1,1\n', ":3"),
    ],
)
def test_bad_files_say_where(tmp_path, text, said):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_measurements(path)


def test_a_missing_file_names_the_nearest():
    with pytest.raises(InputError, match="nvidia-h200"):
        read_measurements("nvidia-h20")


@pytest.mark.parametrize("name", measurement_names())
def test_shipped_measurements_say_where_they_are_from(name):
    file = read_measurements(name)
    header = "\n".join(file.header)
    for said in ("date:", "device:", "driver:", "versions:", "cold:", "warm:"):
        assert said in header
    assert all(row.seconds_warm is None or row.seconds_warm > 0 for row in file.rows)


def test_there_are_enough_rows_of_every_family():
    rows = read_measurements("nvidia-h200").rows
    assert len(rows) >= 200
    assert len({row.op for row in rows}) >= 15


def test_the_page_shows_every_table(tmp_path):
    device = toy_device(tmp_path)
    file = read_measurements(written(tmp_path, f'add,"{ADD}",24e-6,,'))
    table = error_table(compare_measurements(file, predictors(device)))
    page = accuracy_page([file], {file.name: table}, device.card)
    assert "| seconds | elementwise | cold | 1 | 50.0% |" in page
    assert "- device: made up" in page
    assert len({line.count("|") for line in page.splitlines() if line.startswith("|")}) == 1


def test_a_residual_learns_a_constant_factor_and_stays_within_its_range(tmp_path):
    """Every add takes 1.5 times its physical time: so do corrected ones of the sizes seen, and no others."""
    device = load_device("nvidia-h200", calibration=None)
    specs = [f'{{""op"":""add"",""numel"":{1000 * i},""dtype"":""fp32""}}' for i in range(10, 400)]
    plain = compare_measurements(
        read_measurements(written(tmp_path, *(f'add,"{spec}",1,1,' for spec in specs))), predictors(device)
    )
    cold, warm = ([row.predicted for row in plain if row.cache == cache] for cache in ("cold", "warm"))
    rows = [f'add,"{spec}",{1.5 * a},{1.5 * b},' for spec, a, b in zip(specs, cold, warm, strict=True)]
    residual = Residual.train(device, [read_measurements(written(tmp_path, *rows))])
    corrected = Corrected(device, residual)
    for numel, factor in ((123_000, 1.5), (50_000_000, 1.0)):
        kernel = spec_kernel({"op": "add", "numel": numel, "dtype": "fp32"}, device)
        ratio = corrected.timed(Replay()).estimate(kernel).seconds / device.timed(Replay()).estimate(kernel).seconds
        assert ratio == pytest.approx(factor, rel=0.02)


def test_no_correction_is_scored_on_the_rows_that_it_learned(tmp_path, capsys):
    """A file that the calibration does not list has no rows set apart; one that it lists is corrected."""
    specs = [f'{{""op"":""add"",""numel"":{1000 * i},""dtype"":""fp32""}}' for i in range(10, 200)]
    path = written(tmp_path, *(f'add,"{spec}",9e-6,,' for spec in specs))
    for sources in (["auto"], ["none"]):
        options = ["--device", "nvidia-h200", "--residual", "--worst", "0", "--calibration", *sources]
        assert main(["validate", str(path), *options]) == 0
        shown = capsys.readouterr()
        assert "residual" not in shown.out
        assert "no correction" in shown.err


def test_the_worst_rows_shown_are_unseen_ones(tmp_path, capsys):
    """Half of the rows are fitted; the others are all that is shown as predictions."""
    rows = [f'add,"{ADD.replace("1000000", str(1000 * i))}",{i}e-7,,' for i in range(10, 60)]
    file, out = written(tmp_path, *rows), tmp_path / "mine.yaml"
    assert main(["calibrate", str(file), "--device", "nvidia-h200", "--parts", "2", "--out", str(out)]) == 0
    seen = {row.spec["numel"] for row in split_rows(read_measurements(file).rows, 2)[0]}
    capsys.readouterr()
    assert main(["validate", str(file), "--device", "nvidia-h200", "--calibration", str(out), "--worst", "99"]) == 0
    shown = {int(number) for number in re.findall(r"numel=(\d+)", capsys.readouterr().err)}
    assert shown == {1000 * i for i in range(10, 60)} - seen


def test_a_residual_refuses_what_if_cards():
    changed = load_device("nvidia-h200", {"memories.hbm.bandwidth": "6 TB/s"})
    with pytest.raises(InputError, match="what-if"):
        Corrected(changed, Residual({}))


def test_a_threshold_decides_the_exit_code(tmp_path, capsys):
    path = written(tmp_path, f'add,"{ADD}",24e-6,,')
    assert main(["validate", str(path), "--device", "nvidia-h200", "--threshold", "0.01"]) == 1
    assert "elementwise (cold) is off by" in capsys.readouterr().err
    assert main(["validate", str(path), "--device", "nvidia-h200", "--threshold", "5"]) == 0


def test_the_page_of_charts(tmp_path):
    path, page = written(tmp_path, f'add,"{ADD}",24e-6,,'), tmp_path / "page.html"
    assert main(["validate", str(path), "--device", "nvidia-h200", "--figure", str(page)]) == 0
    text = page.read_text()
    for said in ("Predicted against measured", "thought bound by", "numel=1000000", "physical model"):
        assert said in text
