"""The card of this machine: measured once, then remembered."""

from __future__ import annotations

import pytest

from hwsim.device import card_names, load_device, outline
from hwsim.devices import local, probe
from hwsim.devices.cpu import bench
from hwsim.errors import InputError
from hwsim.measurements import Measurement
from hwsim.testing import check_device

# Two kernels as another machine would time them: 3 us a call, and 10 GB/s.
ROWS = (
    Measurement({"op": "add", "numel": 16, "dtype": "fp32"}, 3e-5, 3e-6, None),
    Measurement({"op": "add", "numel": 10**6, "dtype": "fp32"}, 1.3e-3, 1.2e-3, None),
)


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """An empty cache directory, and measurements that are made up."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(probe, "matmul_rate", lambda fmt, one_core: 1e11 if fmt == "float32" else 5e10)
    monkeypatch.setattr(probe, "special_rate", lambda: 1e9)
    monkeypatch.setattr(probe, "stream", lambda nbytes: probe.Stream(4e10 if nbytes < 1e6 else 1e10, 1e10))
    monkeypatch.setattr(probe, "latency", lambda nbytes: 1e-9 if nbytes < 1e6 else 1e-7)
    monkeypatch.setattr(probe, "one_core_bandwidth", lambda: 1e10)
    monkeypatch.setattr(probe, "module_overhead", lambda: 1e-6)
    monkeypatch.setattr(local, "busy_elsewhere", lambda: False)
    monkeypatch.setattr(local, "measure_kernels", lambda seconds, cache, alone, progress: ROWS)
    levels = (probe.CacheLevel(1, 32768, probe.cores()), probe.CacheLevel(3, 2**25, 1))
    monkeypatch.setattr(probe, "cache_levels", lambda: levels)
    return tmp_path


def test_the_card_is_a_sound_cpu(quick):
    device = load_device("cpu-local")
    assert [memory.name for memory in device.card.memories] == ["l1", "l3", "ddr"]
    assert device.card.matmul["fp32"] == 1e11
    assert device.card.figures["compute.matmul.fp32"].mark == "measured"
    assert check_device(device) == []


def test_constants_are_fitted_to_kernels_of_the_machine(quick, capsys):
    card = load_device("cpu-local").card
    assert (quick / "hwsim" / "cpu-local-calibration.yaml").exists()
    assert card.figures["parameters.op_overhead"].mark == "calibrated"
    assert card.parameter("op_overhead") == pytest.approx(3e-6, rel=0.1)
    assert "kept in" in capsys.readouterr().err
    assert load_device("cpu-local", calibration=None).card.figures["parameters.op_overhead"].mark == "assumed"


def test_a_busy_machine_is_measured_on_one_core(quick, monkeypatch, capsys):
    """Both figures say so, and the same rows, taken as one core's, ask for less of each."""
    asked = []
    monkeypatch.setattr(local, "busy_elsewhere", lambda: True)
    monkeypatch.setattr(probe, "matmul_rate", lambda fmt, one_core: asked.append(one_core) or 1e11)
    monkeypatch.setattr(local, "measure_kernels", lambda seconds, cache, alone, progress: asked.append(alone) or ROWS)
    load_device("cpu-local")
    assert asked == [True, True, True]
    assert "of one core" in capsys.readouterr().err


def test_without_torch_constants_stay_typical(quick, monkeypatch, capsys):
    monkeypatch.setattr(local, "find_spec", lambda name: None if name == "torch" else object())
    card = load_device("cpu-local").card
    assert card.figures["parameters.op_overhead"].mark == "assumed"
    assert "without torch" in capsys.readouterr().err


def test_it_is_measured_once(quick, monkeypatch):
    first = local.card_text()
    assert (quick / "hwsim" / "cpu-local.yaml").read_text() == first
    monkeypatch.setattr(local, "measured_card", lambda busy, tell: pytest.fail("measured again"))
    assert local.card_text() == first


def test_it_is_listed():
    assert "cpu-local" in card_names()


def test_before_it_is_measured_its_outline_is_known_and_after_it_none(quick):
    known = outline("cpu-local")
    assert known.family == "cpu"
    assert f"{probe.cores()} cores" in known.title
    assert "45 s" in known.note
    assert list(quick.iterdir()) == []
    assert load_device("cpu-local").card.title == known.title
    assert outline("cpu-local") is None
    assert outline("nvidia-h200") is None


def test_progress_only_grows_and_names_what_is_measured(quick, monkeypatch):
    told = []
    monkeypatch.setattr(local.Progress, "done", lambda self, part, doing: told.append((part, doing)))
    monkeypatch.setattr(local, "measure_kernels", lambda seconds, cache, alone, progress: progress(0.5) or ROWS)
    local.card_text()
    parts = [part for part, _ in told]
    assert parts == sorted(parts)
    assert 0 <= parts[0] < parts[-1] < 1
    assert {"arithmetic", "memories", "torch's kernels", "fitting constants"} <= {doing for _, doing in told}


def test_a_cache_that_cannot_be_written_is_told_before_anything_is_measured(quick, monkeypatch):
    (quick / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(quick / "file"))
    monkeypatch.setattr(local, "measured_card", lambda busy, tell: pytest.fail("measured"))
    with pytest.raises(InputError, match=r"cannot be kept there: .*; XDG_CACHE_HOME names another folder"):
        load_device("cpu-local")


def test_caches_are_read_from_the_kernels_files(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "cores", lambda: 8)
    described = (("Data", "32K", "0-1", 1), ("Instruction", "32K", "0-1", 1), ("Unified", "8192K", "0-3,8-11", 3))
    for index, (kind, size, shared, level) in enumerate(described):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        for name, value in (("type", kind), ("size", size), ("shared_cpu_list", shared), ("level", level)):
            (folder / name).write_text(f"{value}\n")
    assert probe.cache_levels(tmp_path) == (probe.CacheLevel(1, 32768, 4), probe.CacheLevel(3, 2**23, 1))
    assert probe.cache_levels(tmp_path / "none") == ()


def test_every_kernel_of_the_calibration_runs():
    pytest.importorskip("torch")
    for spec in bench.all_specs():
        if spec.get("numel", 0) <= 2**16 and spec["op"] != "conv2d":
            bench.build(spec)()


@pytest.mark.slow
def test_this_machine_can_be_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    card = load_device("cpu-local").card
    assert card.matmul["fp32"] > 1e8
    assert card.main.bandwidth > 1e8
    assert all(memory.latency > 0 for memory in card.memories)
