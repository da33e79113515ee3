"""Calibrations: constants that are known come back from made-up measurements; files are read strictly; cards say so."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from hwsim.calibrating import Share, calibrate
from hwsim.calibration import calibrated, find_calibration, read_calibration, write_calibration
from hwsim.cli import main
from hwsim.device import Replay, card_names, estimate_all, load_device
from hwsim.errors import CardError, InputError
from hwsim.fitting import fit, fitted_value
from hwsim.kernel_spec import spec_kernel
from hwsim.mapper import Launch
from hwsim.measurements import Measurements, read_measurements
from hwsim.registry import data_files

SIZES = np.unique(np.geomspace(2e4, 5e8, 120).astype(int))
TRUTH = {"main_share": 0.8, "single_latency": 4e-6, "graph_launch_latency": 1.1e-6}


def card():
    return load_device("nvidia-h200", calibration=None)


def made_up_rows(path, noise, truth=TRUTH):
    """Rows of `add` as a device with the constants of ``truth`` would take, each off by a factor of up to ``noise``."""
    device = card().with_constants(truth)
    specs = [{"op": "add", "numel": int(size), "dtype": "bf16"} for size in SIZES]
    cold = estimate_all(device.timed(None), [spec_kernel(spec, device, Launch.EAGER) for spec in specs])
    warm = estimate_all(device.timed(Replay()), [spec_kernel(spec, device) for spec in specs])
    factors = np.random.default_rng(1).uniform(1 - noise, 1 + noise, (len(specs), 2))
    with path.open("w", newline="") as stream:
        stream.write("# device: made up\n# date: today\n")
        writer = csv.writer(stream)
        writer.writerow(["op", "spec", "seconds_cold", "seconds_warm", "joules_warm"])
        for spec, one, other, (a, b) in zip(specs, cold, warm, factors, strict=True):
            writer.writerow(["add", json.dumps(spec), a * one.seconds, b * other.seconds, ""])
    return read_measurements(path)


def test_known_constants_come_back(tmp_path):
    found = calibrate(card(), [Share(made_up_rows(tmp_path / "rows.csv", 0.03), 2)], progress=lambda line: None)
    for name, value in TRUTH.items():
        assert found.constants[name].value == pytest.approx(value, rel=0.05)
        assert found.constants[name].low <= found.constants[name].value <= found.constants[name].high
    spread = found.spreads["elementwise"]["cold"]
    assert 0.9 < spread.low < 1 < spread.high < 1.1
    assert spread.mape < 0.03


def test_there_are_intervals_where_all_rows_are_fitted(tmp_path):
    """No row is left to tell an error, but folds of the fitted ones tell the spread; the file keeps it."""
    found = calibrate(card(), [Share(made_up_rows(tmp_path / "rows.csv", 0.03), 1)], progress=lambda line: None)
    spread = found.spreads["elementwise"]["warm"]
    assert 0.9 < spread.low < 1 < spread.high < 1.1
    assert (spread.rows, spread.mape) == (0, None)
    write_calibration(found, tmp_path / "c.yaml")
    assert read_calibration(tmp_path / "c.yaml").spreads["elementwise"]["warm"].mape is None
    assert calibrated(card().card, found).calibration.spread("elementwise", "warm").low == spread.low


def test_folds_do_not_start_from_a_fit_that_knows_them(tmp_path, monkeypatch):
    starts = []

    def spied(samples, names, start):
        starts.append(start["main_share"])
        return fit(samples, names, start)

    monkeypatch.setattr("hwsim.calibrating.fit", spied)
    calibrate(card(), [Share(made_up_rows(tmp_path / "rows.csv", 0.03), 2)], progress=lambda line: None)
    assert starts == [card().constants["main_share"].neutral] * 3  # all rows, then each fold


def test_models_that_tell_the_host_are_counted(tmp_path):
    """Of a file, its seen models run operator by operator; of those in graphs no constant is fitted."""
    file, wanted = read_measurements("nvidia-h200-models"), {"model": "llama-3.2-1b", "batch": 1, "prompt": 128}
    rows = [row for row in file.rows if wanted.items() <= row.spec.items()]
    shares = [
        Share(made_up_rows(tmp_path / "rows.csv", 0.03), 2),
        Share(Measurements("models", (), tuple(rows)), 1),
    ]
    kernels, models = calibrate(card(), shares, progress=lambda line: None).sources
    assert (kernels.rows, kernels.fitted) == (len(SIZES), len(shares[0].seen.rows))
    assert (models.rows, models.fitted) == (len(rows), sum(row.spec["mode"] == "eager" for row in rows))
    assert models.fitted > 0


def test_energies_are_fitted_at_measured_times(tmp_path):
    """Rows that take twice the time of the model draw the static power as long; their energies come back."""
    device = card().with_constants(TRUTH | {"main_energy": 0.6})
    specs = [{"op": "add", "numel": int(size), "dtype": "bf16"} for size in SIZES[-40:]]
    replayed = device.timed(Replay())
    batches = replayed.batches([spec_kernel(spec, device) for spec in specs])
    seconds = 2 * replayed.seconds(batches)
    joules = replayed.joules(batches, seconds)
    with (tmp_path / "rows.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["op", "spec", "seconds_cold", "seconds_warm", "joules_warm"])
        for spec, taken, spent in zip(specs, seconds, joules, strict=True):
            writer.writerow(["add", json.dumps(spec), "", taken, spent])
    share = Share(read_measurements(tmp_path / "rows.csv"), 2)
    found = calibrate(card(), [share], progress=lambda line: None)
    dynamic = joules - device.card.static_power * seconds
    fitted = card().with_constants(found.values()).timed(Replay())
    again = fitted.joules(batches, seconds) - device.card.static_power * seconds
    assert again == pytest.approx(dynamic, rel=0.05)


def test_energies_are_fitted_at_the_constants_that_the_times_told(tmp_path, monkeypatch):
    """Energies set the clock at the power limit, and times say how long main memory keeps kernels from feeling it."""
    known = []

    def spied(samples, names, start):
        known.append((samples[0].seconds is not None, samples[0].device.chip["main_share"]))
        return fit(samples, names, start)

    monkeypatch.setattr("hwsim.calibrating.fit", spied)
    made_up_rows(tmp_path / "rows.csv", 0.01)
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    lines[4:] = [line + ("0.01" if i % 2 else "") for i, line in enumerate(lines[4:])]
    (tmp_path / "rows.csv").write_text("\n".join(lines))
    found = calibrate(card(), [Share(read_measurements(tmp_path / "rows.csv"), 2)], progress=lambda line: None)
    before, times, after = known[:3]
    assert before == (True, 1.0)
    assert times == (False, 1.0)
    assert after == (True, found.constants["main_share"].value)


def test_a_few_wild_rows_do_not_decide(tmp_path):
    rows = made_up_rows(tmp_path / "rows.csv", 0.02)
    text = (tmp_path / "rows.csv").read_text().splitlines()
    for i in range(5, len(text), 20):  # one in twenty takes four times as long
        cells = next(csv.reader([text[i]]))
        cells[2:4] = [str(4 * float(cell)) for cell in cells[2:4]]
        text[i] = ",".join([cells[0], '"' + cells[1].replace('"', '""') + '"', *cells[2:]])
    (tmp_path / "wild.csv").write_text("\n".join(text))
    wild = read_measurements(tmp_path / "wild.csv")
    found = calibrate(card(), [Share(wild, 2)], progress=lambda line: None)
    assert len(wild.rows) == len(rows.rows)
    assert found.constants["main_share"].value == pytest.approx(TRUTH["main_share"], rel=0.1)


def test_what_the_rows_do_not_tell_is_taken_from_the_base(tmp_path):
    rows = made_up_rows(tmp_path / "rows.csv", 0.01)
    base = calibrate(card(), [Share(rows, 2)], progress=lambda line: None)
    other = base.model_copy(
        update={
            "calibration": "other",
            "constants": {
                **base.constants,
                "matmul_share": base.constants["main_share"].model_copy(update={"value": 0.7}),
            },
        }
    )
    found = calibrate(card(), [Share(rows, 2)], other, progress=lambda line: None)
    assert found.constants["matmul_share"].value == 0.7
    assert found.constants["matmul_share"].taken_from == "other"
    assert found.constants["main_share"].taken_from == ""


def borrowed(path, **values):
    """A calibration of the H200 that has such constants from another device."""
    found = calibrate(card(), [Share(made_up_rows(path, 0.01), 2)], progress=lambda line: None)
    known = found.constants["main_share"]
    others = {name: known.model_copy(update={"value": value, "taken_from": "other"}) for name, value in values.items()}
    return found.model_copy(update={"constants": found.constants | others})


def test_what_a_card_knows_from_a_source_is_not_replaced_by_another_device(tmp_path):
    """The A100's latency in a graph is derived from its own benchmark, its host's overhead is assumed."""
    found = borrowed(tmp_path / "rows.csv", graph_launch_latency=9e-6, host_launch_overhead=9e-6, single_latency=9e-6)
    a100 = load_device("nvidia-a100-80gb", calibration=None)
    other = calibrated(a100.card, found, constants=a100.constants)
    assert other.parameter("graph_launch_latency") == 1.4e-6
    assert (other.parameter("host_launch_overhead"), other.parameter("single_latency")) == (9e-6, 9e-6)
    notes = {name: other.figures[f"parameters.{name}"].note for name in ("host_launch_overhead", "single_latency")}
    assert "taken from other, instead of 6 µs (assumed)" in notes["host_launch_overhead"]
    assert "taken from other, instead of 2.7 µs (derived)" in notes["single_latency"]  # what it says of any launch


def test_fits_do_not_start_from_what_the_card_knows_better(tmp_path):
    """Rows of products tell no latency of graphs: it stays the card's own, and the file does not have the base's."""
    base = borrowed(tmp_path / "rows.csv", graph_launch_latency=9e-6, peer_latency=9e-6)
    cold = tmp_path / "cold.csv"
    lines = (tmp_path / "rows.csv").read_text().splitlines()
    with cold.open("w", newline="") as stream:
        writer = csv.writer(stream)
        for row in csv.reader(line for line in lines if not line.startswith("#")):
            writer.writerow(row if row[0] == "op" else [*row[:3], "", ""])
    found = calibrate(card(), [Share(read_measurements(cold), 2)], base, progress=lambda line: None)
    assert "graph_launch_latency" not in found.constants
    assert found.constants["peer_latency"].taken_from == "other"


@pytest.mark.parametrize(("fitted", "said"), [
    ((0.99, 0.9, 1.0), "at its upper bound of 1"),
    ((0.301, 0.3, 0.31), "at its lower bound of 0.3"),
    ((0.5, 0.3, 1.0), "the rows hardly tell it"),
    ((0.5, 0.45, 0.55), ""),
])  # fmt: skip
def test_constants_that_rows_tell_badly_are_remarked(fitted, said):
    assert fitted_value(card().constants["matmul_share"], *fitted).remark == said


def test_a_constant_that_ends_at_its_bound_is_told(tmp_path):
    """Launches of 20 ns are below what a fit allows: said while it runs, in the file, and by the card."""
    rows = made_up_rows(tmp_path / "rows.csv", 0.01, {**TRUTH, "graph_launch_latency": 2e-8})
    said = []
    found = calibrate(card(), [Share(rows, 2)], progress=said.append)
    assert "graph_launch_latency = 3e-07: at its lower bound of 3e-07" in said
    write_calibration(found, tmp_path / "c.yaml")
    device = load_device("nvidia-h200", calibration=tmp_path / "c.yaml")
    assert device.card.figures["parameters.graph_launch_latency"].note.endswith("at its lower bound of 3e-07")


def test_files_round_trip_and_cards_carry_marks(tmp_path):
    found = calibrate(card(), [Share(made_up_rows(tmp_path / "rows.csv", 0.01), 2)], progress=lambda line: None)
    write_calibration(found, tmp_path / "c.yaml")
    again = read_calibration(tmp_path / "c.yaml")
    assert again.values() == pytest.approx(found.values(), rel=1e-3)
    device = load_device("nvidia-h200", calibration=tmp_path / "c.yaml")
    figure = device.card.figures["parameters.main_share"]
    assert (figure.mark, figure.value) == ("calibrated", pytest.approx(found.constants["main_share"].value, rel=1e-3))
    kept = load_device("nvidia-h200", {"parameters.main_share": 0.5}, calibration=tmp_path / "c.yaml")
    assert kept.card.parameter("main_share") == 0.5


def test_a_card_of_the_generation_says_so(tmp_path):
    found = calibrate(card(), [Share(made_up_rows(tmp_path / "rows.csv", 0.01), 2)], progress=lambda line: None)
    other = calibrated(load_device("nvidia-h100-sxm", calibration=None).card, found)
    assert not other.calibration.own
    assert "nvidia-h200, the same generation" in other.figures["parameters.main_share"].note


def test_another_family_is_refused(tmp_path):
    found = calibrate(card(), [Share(made_up_rows(tmp_path / "rows.csv", 0.01), 2)], progress=lambda line: None)
    with pytest.raises(CardError, match="family"):
        calibrated(load_device("amd-epyc-7742", calibration=None).card, found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("calibration: x\n", "device"),
        (
            "{calibration: x, device: y, family: gpu, date: d, sources: [], constants: {a: {value: .nan, low: 1}}}",
            "finite",
        ),
        ("calibration: [", "YAML"),
    ],
)
def test_bad_files_say_where(tmp_path, text, said):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_calibration(tmp_path / "bad.yaml")


def test_rows_of_nothing_the_device_runs(tmp_path):
    (tmp_path / "rows.csv").write_text("op,spec,seconds_cold,seconds_warm,joules_warm\n" + 'x,"{""op"":""x""}",1,1,\n')
    with pytest.raises(InputError, match="no row"):
        calibrate(card(), [Share(read_measurements(tmp_path / "rows.csv"), 2)], progress=lambda line: None)


@pytest.mark.parametrize("name", sorted(data_files("hwsim.devices", "calibrations")))
def test_shipped_calibrations_are_of_known_cards_and_within_bounds(name):
    found = read_calibration(data_files("hwsim.devices", "calibrations")[name])
    assert found.device in card_names()
    device = load_device(found.device)
    assert find_calibration(device.card).calibration == name
    fitted = [known for known in found.constants.values() if not known.taken_from]
    assert len(fitted) <= 25
    for constant, known in found.constants.items():
        assert device.constants[constant].low * 0.999 <= known.value <= device.constants[constant].high * 1.001


def test_the_command_writes_a_file(tmp_path, capsys):
    made_up_rows(tmp_path / "rows.csv", 0.01)
    out = tmp_path / "mine.yaml"
    assert main(["calibrate", str(tmp_path / "rows.csv"), "--device", "nvidia-h200", "--out", str(out)]) == 0
    assert "main_share" in capsys.readouterr().out
    assert read_calibration(out).sources[0].parts == 2
    assert main(["calibrate", str(tmp_path / "rows.csv"), "--device", "sn40l"]) == 2
