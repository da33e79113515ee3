"""Every command: what it prints for people, its JSON, its exit code, and that nobody ever sees a traceback."""

import json
import math

import pytest

MODEL = ("--model", "llama-3.2-1b")
ESTIMATE = ("estimate", "llama-3.2-1b", "--device", "sn40l", "--batch", "2", "--prompt", "1k")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--version"], 0, ""),
        ([], 0, ""),
        (["lst"], 2, "hwsim: No such command 'lst'. Did you mean 'list'?"),
        (["run"], 2, "hwsim: Missing argument 'STUDY.yaml'"),
        (["run", "nowhere.yaml"], 2, "hwsim: nowhere.yaml: no such file"),
        (["list", "device"], 2, "'device' is not one of 'devices', 'models'"),
        (["estimate", "llama-3.2-1c", "--device", "sn40l"], 2, "did you mean 'llama-3.2-1b'?"),
        (["estimate", "llama-3.2-1b", "--device", "sn40"], 2, "did you mean 'sn40l'?"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--mapper", "egaer"], 2, "did you mean 'eager'?"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--phase", "decod"], 2, "did you mean 'decode'?"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--dtype", "bf17"], 2, "did you mean 'bf16'?"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--batch", "0"], 2, "expected a whole number from 1"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--batch", "-3"], 2, "not a count"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--batch", "9" * 400], 2, "expected"),
        (
            ["estimate", "llama-3.2-1b", "--device", "sn40l", "--batch", "1G"],
            2,
            "does not fit in the memories of sn40l",
        ),
        (["estimate", "nowhere.onnx", "--device", "sn40l"], 2, "nowhere.onnx"),
        (["estimate", "no.module:net", "--device", "sn40l"], 2, "No module named 'no'"),
        (["estimate", "llama-3.2-1b", "--device", "sn40l", "--dim", "batch"], 2, "expected NAME=SIZE"),
        (["show", "nvidia-h20"], 2, "did you mean 'nvidia-h200'?"),
        (["schema", "sudy"], 2, "'sudy' is not one of 'study', 'card'"),
        (["explain", "nowhere", "1"], 2, "no results in this folder"),
        (["compare", "nowhere"], 2, "give two results folders"),
        (["compare", *MODEL], 2, "at least one --model and one --device"),
        (["compare", *MODEL, "--device", "sn40l", "--fail-if", "latency>+5%"], 2, "compares two results folders"),
        (["compare", "a", "b", "--fail-if", "latncy>+5%"], 2, "did you mean 'latency'?"),
        (["compare", "a", "b", "--fail-if", "latency>lots"], 2, "expected such as latency>+5%"),
        (["predict", "nowhere.json", "--device", "sn40l"], 2, "nowhere.json: cannot be read"),
    ],
)
def test_exit_codes_and_one_line_errors(hwsim, arguments, code, said):
    ran = hwsim(*arguments)
    assert ran.code == code
    assert said in ran.err
    assert "Traceback" not in ran.err
    if code:
        assert all(line.startswith("hwsim: ") for line in ran.err.splitlines())
        assert ran.out == ""


def test_estimate_prints_units_and_the_top_kernels(hwsim):
    ran = hwsim(*ESTIMATE)
    assert ran.code == 0
    assert "llama-3.2-1b decode on sn40l: batch 2, prompt 1024, bf16" in ran.out
    assert "TB/s" in ran.out
    assert "Most time" in ran.out


def test_json_is_the_library_s_summary(hwsim):
    from hwsim.simulation import estimate

    summary = estimate("llama-3.2-1b", "sn40l", batch=2, prompt=1024).summary()
    data = hwsim(*ESTIMATE, "--json").data
    assert {name: data[name] for name in summary} == summary
    assert data["latency_s"] > 0


def test_a_timeline_is_written(hwsim, tmp_path):
    path = tmp_path / "trace.json"
    assert hwsim(*ESTIMATE, "--trace", path).code == 0
    assert json.loads(path.read_text())["traceEvents"]


def test_run_resumes_and_tells_both_times_the_same(hwsim, study, tmp_path):
    out = tmp_path / "out"
    planned = hwsim("run", study, "--out", out, "--dry-run", "--json")
    assert [case["state"] for case in planned.data["cases"]] == ["to run"] * 6
    assert not out.exists()
    first = hwsim("run", study, "--out", out, "--no-report", "--json")
    assert first.code == 0
    assert len(first.data) == 6
    again = hwsim("run", study, "--out", out, "--no-report", "--json")
    assert again.data == first.data
    assert "6 ok, 0 failed, 6 of them stored before" in again.err
    planned = hwsim("run", study, "--out", out, "--dry-run")
    assert "0 to run, 6 cached" in planned.err


def test_run_writes_a_report(hwsim, study, tmp_path):
    ran = hwsim("run", study, "--out", tmp_path / "out")
    assert ran.code == 0
    assert (tmp_path / "out" / "report.html").exists()
    assert "report.html" in ran.err


def test_failed_cases_are_shown_and_exit_with_3(hwsim, study, tmp_path):
    ran = hwsim("run", study, "--out", tmp_path / "out", "--no-report", "--set", "matrix.batch=[1, 1G]")
    assert ran.code == 3
    assert "does not fit" in ran.out
    assert "2 of 4 cases failed" in ran.err


def test_all_problems_of_a_study_are_printed(hwsim, study):
    ran = hwsim("run", study, "--set", "models=[lama]", "--set", "mapper=egaer", "--set", "wrkload.batch=1")
    assert ran.code == 2
    assert ran.err.count("hwsim: --set: ") == 3


def test_compare_models_on_devices(hwsim):
    ran = hwsim("compare", *MODEL, "--device", "sn40l", "--device", "rram-40nm-macro", "--json")
    assert ran.code == 0
    assert [row["device"] for row in ran.data] == ["sn40l", "rram-40nm-macro"]
    assert ran.data[0]["latency_s"] > 0
    assert "does not fit" in ran.data[1]["error"]


@pytest.fixture
def two_folders(hwsim, study, tmp_path):
    """The small study on a card and on the same card with a memory twice as slow, under the same label."""
    folders = tmp_path / "before", tmp_path / "after"
    for folder, bandwidth in zip(folders, ("1.8 TB/s", "0.9 TB/s"), strict=True):
        system = f"{{card: sn40l, set: {{memories.hbm.bandwidth: {bandwidth}}}, label: rdu}}"
        hwsim("run", study, "--out", folder, "--no-report", "--set", f"systems.0={system}")
    return folders


def test_compare_two_folders(hwsim, two_folders):
    rows = hwsim("compare", *two_folders, "--json").data
    assert len(rows) == 6
    assert all(1.5 < row["latency_ratio"] <= 2.0 + 1e-9 for row in rows)
    assert "%" in hwsim("compare", *two_folders).out


@pytest.mark.parametrize(
    ("rule", "code"), [("latency>+5%", 1), ("latency>+150%", 0), ("tokens_per_s<-5%", 1), ("peak_memory>+0%", 0)]
)
def test_fail_if_is_a_gate(hwsim, two_folders, rule, code):
    ran = hwsim("compare", *two_folders, "--fail-if", rule)
    assert ran.code == code
    assert (rule in ran.err) == bool(code)


def test_a_case_that_no_longer_works_breaks_the_gate(hwsim, study, tmp_path):
    folders = tmp_path / "before", tmp_path / "after"
    for folder, capacity in zip(folders, ("1.5 TB", "1 GB"), strict=True):
        system = f"{{card: sn40l, set: {{memories.ddr.capacity: {capacity}, memories.hbm.capacity: 3 GB}}, label: x}}"
        hwsim(
            "run",
            study,
            "--out",
            folder,
            "--no-report",
            "--set",
            f"systems.0={system}",
            "--set",
            "matrix.batch=[64]",
            "--set",
            "matrix.prompt=[4k]",
        )
    ran = hwsim("compare", *folders, "--fail-if", "latency>+5%")
    assert ran.code == 1
    assert "failed: llama-3.2-1b does not fit" in ran.err


def test_explain_says_what_bounds_a_case_and_what_would_move_it(hwsim, study, tmp_path):
    hwsim("run", study, "--out", tmp_path / "out", "--no-report")
    ran = hwsim("explain", tmp_path / "out", 1)
    assert ran.code == 0
    assert "bound by hbm" in ran.out
    data = hwsim("explain", tmp_path / "out", 1, "--json").data
    assert math.isclose(sum(bound["share"] for bound in data["bounds"]), 1.0, rel_tol=1e-9)
    first = data["movers"][0]
    # A tenth more bandwidth takes 1 - 1/1.1 = 9.1 % off what the memory binds, which is nearly everything here.
    assert first["figure"] == "memories.hbm.bandwidth"
    assert -1 / 11 - 1e-9 <= first["latency"] < -0.08
    assert hwsim("explain", tmp_path / "out", data["case"]["key"][:12]).code == 0
    assert "expected 1 to 6" in hwsim("explain", tmp_path / "out", 99).err


def test_graph_adds_up(hwsim):
    data = hwsim("graph", "llama-3.2-1b", "--phase", "decode", "--json").data
    assert data["parameters"] == 1235814400
    counted = sum(row["count"] * row["matmul_flops"] for row in data["table"])
    assert counted == data["matmul_flops"]


def test_predict_round_trips(hwsim, tmp_path):
    specs = [
        {"op": "matmul", "m": 4096, "n": 4096, "k": 4096, "batch": 1, "dtype": "bf16", "name": "mine"},
        {"op": "softmax", "rows": 1024, "cols": 1024, "dtype": "fp32"},
    ]
    path = tmp_path / "ops.json"
    path.write_text(json.dumps(specs))
    found = hwsim("predict", path, "--device", "sn40l", "--json").data
    assert [{key: row[key] for key in spec} for row, spec in zip(found, specs, strict=True)] == specs
    assert all(row["seconds"] > 0 and row["joules"] > 0 and row["bound"] and row["bytes"] for row in found)
    assert hwsim("predict", path, "--device", "sn40l", "--cache", "warm").code == 0


def test_predict_reads_a_kernel_a_line(hwsim, tmp_path):
    path = tmp_path / "ops.jsonl"
    path.write_text('\ufeff{"op": "copy_d2d", "bytes": 1e9}\n\n{"op": "copy_d2d", "bytes": 2}\n')
    assert [row["bytes"] for row in hwsim("predict", path, "--device", "sn40l", "--json").data] == [1e9, 2]


def test_a_flood_of_problems_is_cut_short(hwsim, tmp_path):
    path = tmp_path / "ops.json"
    path.write_text(json.dumps([{"op": "copy_d2d"}] * 5000))
    ran = hwsim("predict", path, "--device", "sn40l")
    assert len(ran.err.splitlines()) == 21
    assert ran.err.endswith("... and 4,980 more\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ops.json: empty"),
        ("\n \n", "ops.json: empty"),
        ("3", "got 3, expected a list of kernels, or one a line"),
        ('{"op": "add"}\n{"op": add}', "ops.json:2:8: not JSON"),
        (
            '[\n{"op": "add", "numel": 1, "numel": 2}]',
            "ops.json: 'numel' is given twice in {op: 'add', numel: 1, nu",
        ),
        ("[", "ops.json:1:2: not JSON"),
        ("{}", "[0].op: missing"),
        ('[{"op": "matmul", "n": 1, "k": 1, "dtype": "bf16"}]', "[0].m"),
        ('[{"op": "matmull"}]', "did you mean 'matmul'?"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_predict_refuses_what_is_no_list_of_kernels(hwsim, tmp_path, text, said):
    path = tmp_path / "ops.json"
    path.write_text(text)
    ran = hwsim("predict", path, "--device", "sn40l")
    assert ran.code == 2
    assert said in ran.err


def test_the_machine_at_hand_is_listed_and_shown_without_measuring_it(hwsim, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    listed = {row["name"]: row for row in hwsim("list", "devices", "--json").data}
    assert listed["cpu-local"]["form"].startswith("not measured yet")
    assert listed["cpu-local"].keys() == listed["nvidia-h200"].keys()
    shown = hwsim("show", "cpu-local")
    assert (shown.code, "not measured yet" in shown.err) == (0, True)
    assert hwsim("show", "cpu-local", "--json").data["figures"] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("what", ["devices", "models", "systems", "mappers", "kernels", "studies", "claims"])
def test_lists(hwsim, what):
    rows = hwsim("list", what, "--json").data
    assert rows
    ran = hwsim("list", what)
    assert ran.code == 0
    assert str(next(iter(rows[0].values()))) in ran.out


def test_show_a_card_with_its_sources_and_a_model(hwsim):
    figures = {row["figure"]: row for row in hwsim("show", "sn40l", "--json").data["figures"]}
    assert figures["memories.hbm.bandwidth"]["value"] == 1.8e12
    assert "SN40L" in figures["memories.hbm.bandwidth"]["source"]
    assert "1.8 TB/s" in hwsim("show", "sn40l").out
    assert hwsim("show", "llama-3.2-1b", "--json").data["config"]["layers"] == 16


@pytest.mark.parametrize("command", ["roofline", "memory-wall"])
def test_figures_are_written(hwsim, tmp_path, command):
    ran = hwsim(command, *MODEL, "--device", "sn40l", "--prompt", "2k", "--out", tmp_path / "figure.html")
    assert ran.code == 0
    assert list(tmp_path.glob("figure*.html"))


def test_schemas_are_printed(hwsim):
    assert hwsim("schema", "study").data["title"] == "hwsim study"
    assert hwsim("schema", "card").data["properties"]["memories"]
    assert hwsim("schema", "system").data["properties"]["links"]


SYSTEM = """
system: gpu-and-drive
devices: {gpu: nvidia-a6000, drive: inst-csd}
links: [{name: cable, between: [gpu, drive], card: drive.pcie}]
"""


def test_a_system_file_is_shown_and_taken_for_a_device(hwsim, tmp_path):
    path = tmp_path / "system.yaml"
    path.write_text(SYSTEM)
    shown = hwsim("show", path, "--json").data
    assert shown["devices"] == {"gpu": "nvidia-a6000", "drive": "inst-csd"}
    assert shown["links"] == {"cable": "gpu - drive"}
    assert {row["source"] for row in shown["figures"]} > {
        "Pan et al., InstInfer / InstAttention (arXiv 2409.04992, HPCA'25)"
    }
    ran = hwsim(*ESTIMATE[:3], path, "--json")
    assert ran.data["device"] == "gpu-and-drive"
    path.write_text(SYSTEM.replace("drive]", "drve]"))
    ran = hwsim(*ESTIMATE[:3], path)
    assert ran.code == 2
    assert "links[0].between: a link to 'drve', which is no device and no switch" in ran.err


UPLINK = """
system: behind-a-switch
sources: {made: {title: made for tests}}
devices: {gpu: {card: nvidia-a6000, set: {memories.gddr6.capacity: 1.5 GB}}, cpu: amd-epyc-7742}
switches: [sw]
links:
  - {name: port, between: [gpu, sw], card: gpu.pcie}
  - name: uplink
    between: [cpu, sw]
    bandwidth: {value: 5 GB/s, mark: assumed, source: made}
    latency: {value: 1 us, mark: assumed, source: made}
    energy: {value: 1 pJ/bit, mark: assumed, source: made}
"""
BEHIND = """
study: behind
models: [llama-3.2-1b]
systems: [rig.yaml]
workload: {phase: decode}
matrix: {mapper: [tiered]}
"""


def test_what_is_bound_by_a_link_is_explained_by_it(hwsim, tmp_path):
    (tmp_path / "rig.yaml").write_text(UPLINK)
    (tmp_path / "study.yaml").write_text(BEHIND)
    assert hwsim("run", tmp_path / "study.yaml", "--out", tmp_path / "out", "--no-report").code == 0
    told = hwsim("explain", tmp_path / "out", 1, "--json").data
    assert told["bounds"][0]["resource"] == "uplink to sw"
    roofs = {roof["roof"]: roof for roof in told["roofs"]}
    assert roofs["uplink to sw"]["peak"] == pytest.approx(5e9)
    assert 0.9 < roofs["uplink to sw"]["share"] <= 1 + 1e-9
    moved = {change["figure"]: change["latency"] for change in told["movers"]}
    assert -1 / 11 * (1 + 1e-9) <= moved["links.uplink.bandwidth"] < -0.08
    analytic, latency = told["case"]["analytic_s"], told["case"]["latency_s"]
    assert 0.9 * latency < analytic <= latency * (1 + 1e-9)


def test_what_cannot_be_written_is_one_sentence_and_loses_no_answer(hwsim, tmp_path):
    for target, said in ((tmp_path, "Is a directory"), ("/dev/full", "No space left on device")):
        ran = hwsim(*ESTIMATE, "--json", "--trace", target)
        assert ran.code == 2
        assert said in ran.err
        assert len(ran.err.splitlines()) == 1
        assert ran.data["latency_s"] > 0


def test_a_defect_is_one_sentence_and_exits_with_1(hwsim, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("hwsim.simulation.estimate", broken)
    ran = hwsim(*ESTIMATE)
    assert ran.code == 1
    assert ran.err.startswith("hwsim: this is a defect of hwsim, please report it")
    assert len(ran.err.splitlines()) == 1
