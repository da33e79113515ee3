"""The results folder: columns, journals that were cut short, renumbering, damage, one writer at a time."""

import json

import pyarrow.parquet as pq
import pytest

from hwsim.errors import InputError
from hwsim.study import read_results, run_study
from hwsim.study.files import Journal, lock, read_journal
from hwsim.study.results import card_data, card_from
from hwsim.study.store import CASES, KERNELS, LOCK, RUN, Summary, finished_keys
from hwsim.study.tables import CASE_COLUMNS, KERNEL_COLUMNS


@pytest.fixture
def folder(write, tmp_path):
    """The results of the small study."""
    return run_study(write(), tmp_path / "out").folder


def contents(folder):
    return (folder / CASES).read_bytes(), (folder / KERNELS).read_bytes()


def test_the_folder_holds_two_tables_and_a_record(folder):
    assert sorted(path.name for path in folder.iterdir()) == [CASES, KERNELS, RUN]
    cases, kernels = pq.read_table(folder / CASES), pq.read_table(folder / KERNELS)
    assert cases.column_names[: len(CASE_COLUMNS)] == list(CASE_COLUMNS)
    assert kernels.column_names[: len(KERNEL_COLUMNS)] == list(KERNEL_COLUMNS)
    assert cases["case"].to_pylist() == [1, 2, 3, 4, 5, 6]
    assert "hbm_traffic_bytes" in cases.column_names
    assert "hbm_traffic" in kernels.column_names


def test_kernels_add_up_to_their_case(folder):
    stored = read_results(folder)
    for _, row in stored.cases.iterrows():
        kernels = stored.kernels[stored.kernels["case"] == row["case"]]
        assert kernels["seconds"].sum() == pytest.approx(row["latency_s"], rel=1e-9)
        assert kernels["hbm_traffic"].sum() == pytest.approx(row["hbm_traffic_bytes"], rel=1e-9)
        assert set(kernels["key"]) == {row["key"]}


def test_the_record_says_what_was_run(folder, write):
    record = json.loads((folder / RUN).read_text())
    assert record["counts"] == {"cases": 6, "ok": 6, "failed": 0, "cached": 0, "left_out": 0}
    assert record["study"]["matrix"] == {"batch": [1, 2, 4], "prompt": [128, 1024]}
    assert record["systems"]["sn40l"]["figures"]["memories.hbm.bandwidth"]["value"] == 1.8e12
    assert record["systems"]["sn40l"]["figures"]["memories.hbm.bandwidth"]["mark"] == "paper"


def test_ops_without_a_formula_stay_listed_when_all_is_stored():
    rows = [
        {"model": "a", "status": "ok", "unmodelled": "roll, flip"},
        {"model": "a", "status": "ok", "unmodelled": "roll"},
        {"model": "b", "status": "failed"},
    ]
    assert Summary.of(rows) == Summary(2, 1, {"a": ["flip", "roll"]})


def test_cards_come_back_whole(folder):
    card = read_results(folder).cards["sn40l"]
    assert card_from(json.loads(json.dumps(card_data(card)))) == card


def test_a_study_that_changes_keeps_what_it_still_asks_for(folder, write, tmp_path):
    fewer = run_study(write(), folder, settings=["matrix.batch=[4, 8]"])
    assert (fewer.cached, fewer.ok) == (2, 4)
    fresh = run_study(write(), tmp_path / "fresh", settings=["matrix.batch=[4, 8]"])
    assert contents(fewer.folder) == contents(fresh.folder)


def test_a_journal_line_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "journal-1.jsonl"
    journal = Journal(path)
    journal.append({"key": "a"})
    journal.close()
    with path.open("a") as file:
        file.write('{"key": "b", "fig')
    journal = Journal(path)  # a process of the same id goes on in the same file
    journal.append({"key": "c"})
    journal.close()
    assert [record["key"] for record in read_journal(path)] == ["a", "c"]


def test_a_damaged_results_file_is_said_and_force_mends_it(folder, write):
    (folder / CASES).write_bytes(b"PAR1 nonsense")
    with pytest.raises(InputError, match=r"cases\.parquet: not a readable results file"):
        run_study(write(), folder)
    before = (folder / KERNELS).read_bytes()
    assert run_study(write(), folder, force=True).cached == 0
    assert (folder / KERNELS).read_bytes() == before


def test_a_second_run_in_the_same_folder_is_kept_out(folder, write):
    """The lock belongs to a process, so another one has to try."""
    import subprocess
    import sys

    held = lock(folder / LOCK)
    code = f"from hwsim.study import run_study; run_study({str(write())!r}, {str(folder)!r})"
    tried = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    held.close()
    assert "another run is writing into this folder" in tried.stderr


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(InputError, match="no results in this folder"):
        read_results(tmp_path)
    assert finished_keys(tmp_path) == set()


def test_an_unwritable_folder_is_said_before_anything_runs(write, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file/out: cannot be written: Not a directory"):
        run_study(write(), tmp_path / "file" / "out")
