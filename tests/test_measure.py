"""Measuring kernels: rows are valid interchange objects, runs resume, and one bad op does not end a run."""

import inspect
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from hwsim.kernels import families, measure, measure_rows, suites, timers  # noqa: E402

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
QUICK = ["sum", "add", "matmul"]
ROWS = {"rows", "cols", "dtype"}
NUMEL = {"numel", "dtype"}
HEADS = {"batch", "heads", "kv_heads", "head_dim", "kv_len", "dtype"}
INTERCHANGE = {  # section 7 of the design
    "matmul": {"m", "n", "k", "batch", "dtype"},
    **dict.fromkeys(("softmax", "layernorm", "rmsnorm", "sum", "cumsum", "transpose_copy"), ROWS),
    **dict.fromkeys(("gelu", "silu", "add", "mul"), NUMEL),
    "embedding": {"vocab", "dim", "tokens", "dtype"},
    "attention_prefill": HEADS | {"q_len", "causal"},
    "attention_decode": HEADS,
    "conv2d": {"n", "c", "h", "w", "o", "k", "stride", "padding", "groups", "dtype", "layout"},
    "gather_rows": {"rows", "row_bytes", "table_bytes"},
    **{f"copy_{kind}": {"bytes"} for kind in ("h2d_pinned", "d2h_pinned", "d2d")},
}
STATE = {"batch", "tokens", "heads", "d_k", "d_v", "dtype", "pass_"}
RULES = ("gla", "ssd", "delta_rule", "gated_delta_rule", "kda", "gdn2")
KERNELS = set(INTERCHANGE)
INTERCHANGE |= {f"{form}_{rule}": STATE for form in ("chunk", "recurrent") for rule in RULES}
INTERCHANGE |= {key: {"bytes", "ranks"} for key in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")}
INTERCHANGE["copy_peer"] = {"bytes"}


@pytest.fixture(autouse=True)
def few_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are quick rather than exact: few timings, and a small buffer to evict the caches."""
    monkeypatch.setattr(timers, "REPEATS_MAX", 5)
    monkeypatch.setattr(timers, "last_level_cache_bytes", lambda: 1 << 20)


def table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, comment="#")


def drawn(device: torch.device, op: str, count: int) -> list[families.Fields]:
    family = suites.kernel_families(device)[op]
    return list(islice(family.specs(families.Draw(f"7/{op}", device)), count))


def test_the_suites_of_a_cuda_device_have_every_op_of_the_interchange() -> None:
    assert set(suites.kernel_families(CUDA)) == KERNELS
    assert set(suites.kernel_families(CPU)) == KERNELS - {"copy_h2d_pinned", "copy_d2h_pinned"}
    assert set(measure.families_of(CUDA, ["all", "sequence", "collective"])) == set(INTERCHANGE)
    assert set(measure.families_of(CPU, ["end_to_end"])) == {"model"}


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
@pytest.mark.parametrize("op", sorted(KERNELS))
def test_drawn_specs_have_the_fields_of_the_interchange_and_fit_the_limits(op: str, device: torch.device) -> None:
    if op not in suites.kernel_families(device):
        pytest.skip("no host link on this device")
    limits = families.Draw("", device).limits
    for fields in drawn(device, op, 300):
        assert set(fields) == INTERCHANGE[op]
        assert all(value >= (field == "bytes") for field, value in fields.items() if isinstance(value, int))
        if op == "matmul":
            m, n, k, batch = (int(fields[name]) for name in ("m", "n", "k", "batch"))
            assert 2 * m * n * k * batch <= 1.1 * limits.flops_of(str(fields["dtype"]))
        if op == "attention_prefill":
            assert not fields["causal"] or fields["q_len"] == fields["kv_len"]


def test_sizes_are_log_uniform_and_aligned() -> None:
    draw = families.Draw("sizes", CPU)
    sizes = [draw.size(1, 10_000) for _ in range(4000)]
    assert min(sizes) >= 1
    assert max(sizes) <= 10_000
    assert 0.45 < sum(size < 100 for size in sizes) / len(sizes) < 0.55  # half of the decades lie below 100
    assert any(size % 2 for size in sizes)
    assert all(draw.size(17, 500, multiple=16) % 16 == 0 for _ in range(100))


def test_builders_take_exactly_the_fields() -> None:
    for op, family in suites.kernel_families(CUDA).items():
        assert family.build is not None
        parameters = set(inspect.signature(family.build).parameters) - {"device"}
        assert parameters >= INTERCHANGE[op], op


def test_a_run_writes_a_header_and_rows_that_pandas_reads(tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.csv"
    lines: list[str] = []
    assert measure.measure("cpu", QUICK, out, seconds=60, limit=4, progress=lines.append) == measure.OK
    header = [line for line in out.read_text().splitlines() if line.startswith("#")]
    for word in ("# date: ", "# device: ", "# versions: python", "# cold: ", "# warm: ", "seed 0"):
        assert any(word in line for line in header), word
    rows = table(out)
    assert tuple(rows.columns) == measure_rows.COLUMNS
    assert len(rows) == len(lines) == 4
    assert set(rows.op) <= set(QUICK)
    for row in rows.itertuples():
        spec = json.loads(row.spec)
        assert spec.pop("op") == row.op
        assert set(spec) == INTERCHANGE[row.op]
        assert row.spec == json.dumps({"op": row.op, **spec}, sort_keys=True, separators=(",", ":"))
        assert 0 < row.cold_p10 <= row.seconds_cold <= row.cold_p90
        assert 0 < row.warm_p10 <= row.seconds_warm <= row.warm_p90
    assert rows.joules_warm.isna().all()


def test_a_second_run_skips_what_is_done_and_mends_a_torn_line(tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    measure.measure("cpu", ["add"], out, seconds=60, limit=3)
    whole = table(out)
    with out.open("a") as file:
        file.write('add,"{""dtype"":1')
    measure.measure("cpu", ["add"], out, seconds=60, limit=2)
    rows = table(out)
    assert len(rows) == 5
    assert rows.spec.is_unique
    pd.testing.assert_frame_equal(rows.head(3), whole)
    measure.measure("cpu", ["add"], tmp_path / "at_once.csv", seconds=60, limit=5)
    assert list(rows.spec) == list(table(tmp_path / "at_once.csv").spec)


def test_another_device_or_suite_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.csv"
    out.write_text("# device: NVIDIA H200\n")
    assert measure.measure("cpu", ["add"], out) == measure.WRONG_INPUT
    assert "NVIDIA H200" in capsys.readouterr().err
    assert measure.measure("cpu", ["sums"], tmp_path / "b.csv") == measure.WRONG_INPUT
    assert "unknown suite sums" in capsys.readouterr().err
    assert not (tmp_path / "b.csv").exists()


def test_a_failing_op_is_counted_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = suites.kernel_families(CPU)

    def broken(device: torch.device, rows: int, cols: int, dtype: str) -> families.Call:
        raise RuntimeError("not on this device")

    patched = sound | {"softmax": families.Family(sound["softmax"].specs, broken)}
    monkeypatch.setattr(measure, "kernel_families", lambda device: patched)
    out = tmp_path / "rows.csv"
    assert measure.measure("cpu", ["softmax", "sum"], out, seconds=60, limit=3) == measure.SOME_FAILED
    assert list(table(out).op) == ["sum"] * 3
    errors = capsys.readouterr().err
    assert "RuntimeError: not on this device" in errors
    assert "3 rows measured, 3 failed" in errors


def test_no_time_means_no_rows(tmp_path: Path) -> None:
    assert measure.measure("cpu", ["add"], tmp_path / "rows.csv", seconds=0) == measure.OK
    assert table(tmp_path / "rows.csv").empty


def test_the_script_runs_without_the_package(tmp_path: Path) -> None:
    script = Path(measure.__file__).resolve()
    out = tmp_path / "rows.csv"
    ran = subprocess.run(
        [sys.executable, str(script), "--device", "cpu", "--suite", "mul", "--limit", "1", "--out", str(out)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == ""
    assert list(table(out).op) == ["mul"]


def test_an_op_that_cannot_run_here_is_reported_and_the_others_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.csv"
    assert measure.measure("cpu", ["chunk_gla", "all_reduce", "add"], out, limit=2) == measure.SOME_FAILED
    assert list(table(out).op) == ["add", "add"]
    errors = capsys.readouterr().err
    assert "unavailable: chunk_gla: its Triton kernels need a CUDA device" in errors
    assert "unavailable: all_reduce: it needs two CUDA devices, this host has 0" in errors


def test_calls_are_eager_where_the_family_or_the_mode_says_so() -> None:
    def eager(fields: families.Fields, of_family: bool = False) -> bool:
        family = families.Family(lambda draw: iter(()), eager=of_family)
        return measure_rows.Case("op", fields, family, with_energy=False).eager

    assert eager({"mode": "eager"})
    assert eager({"mode": "onnxruntime"})
    assert eager({"bytes": 1}, of_family=True)
    assert not any(eager(fields) for fields in ({"mode": "graph"}, {"mode": "compile"}, {"bytes": 1}))


def test_gradients_are_kept_for_rows_with_a_backward_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {}

    def build(device: torch.device, pass_: str) -> families.Call:
        modes[pass_] = torch.is_inference_mode_enabled()
        return lambda: None

    rows: list[families.Fields] = [{"pass_": "fwd"}, {"pass_": "fwd+bwd"}]
    family = families.Family(lambda draw: iter(rows), build, cold=families.Cold.REPLAY)
    monkeypatch.setattr(measure, "kernel_families", lambda device: {"op": family})
    assert measure.measure("cpu", ["op"], tmp_path / "rows.csv") == measure.OK
    assert modes == {"fwd": True, "fwd+bwd": False}


def test_a_family_that_times_itself_gives_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(bytes: int) -> families.Timings:
        return families.Timings(cold=[3.0, 5.0, 4.0], warm=[2.0, 1.0, 3.0])

    family = families.Family(lambda draw: iter([{"bytes": 8}]), timed=timed)
    monkeypatch.setattr(measure, "kernel_families", lambda device: {"op": family})
    assert measure.measure("cpu", ["op"], tmp_path / "rows.csv") == measure.OK
    (row,) = table(tmp_path / "rows.csv").itertuples()
    assert (row.seconds_cold, row.seconds_warm, row.warm_p10, row.warm_p90, row.repeats) == (4.0, 2.0, 1.0, 3.0, 3)


MEASUREMENTS = sorted((Path(measure.__file__).resolve().parent / "measurements").glob("*.csv"))


@pytest.mark.parametrize("path", MEASUREMENTS, ids=lambda path: path.stem)
def test_the_committed_measurements_are_valid_rows(path: Path) -> None:
    rows = table(path)
    assert rows.spec.is_unique
    assert (rows.seconds_warm > 0).all()
    for row in rows.itertuples():
        spec = json.loads(row.spec)
        assert spec.pop("op") == row.op
        if row.op != "model":
            assert set(spec) == INTERCHANGE[row.op]
