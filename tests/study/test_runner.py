"""Running: the same bytes however it is run, failures as rows, workers that die, interrupts, clusters."""

import os
import sys
import types
from concurrent.futures import ThreadPoolExecutor

import pytest

from hwsim.errors import InputError, StudyError
from hwsim.study import preview_study, run_study, runner, solve
from hwsim.study.store import CASES, KERNELS


def contents(folder):
    return (folder / CASES).read_bytes(), (folder / KERNELS).read_bytes()


@pytest.fixture
def whole(write, tmp_path):
    """An undisturbed run of the small study in this process."""
    return run_study(write(), tmp_path / "whole", jobs=1)


@pytest.fixture
def break_case(monkeypatch):
    """Have cases of one batch size fail in a given way, in this process and in its forks."""

    def break_it(batch, fail):
        real = solve.simulate

        def simulate(case, *rest):
            if case.workload.batch == batch:
                fail()
            return real(case, *rest)

        monkeypatch.setattr(solve, "simulate", simulate)

    return break_it


def refuse():
    raise KeyError("oh")


def test_worker_processes_give_the_same_bytes(write, tmp_path, whole, monkeypatch):
    monkeypatch.setattr(runner, "FEW", 0)
    seen = []
    result = run_study(write(), tmp_path / "pool", jobs=2, listener=seen.append)
    assert contents(result.folder) == contents(whole.folder)
    assert (seen[-1].total, seen[-1].done, seen[-1].failed) == (6, 6, 0)


def test_what_is_stored_is_not_simulated_again(write, whole, break_case):
    before = contents(whole.folder)
    break_case(2, refuse)
    again = run_study(write(), whole.folder)
    assert (again.cached, again.ok, again.failed) == (6, 6, 0)
    assert contents(whole.folder) == before
    forced = run_study(write(), whole.folder, force=True)
    assert (forced.cached, forced.ok, forced.failed) == (0, 4, 2)


def test_a_defect_fails_its_case_only_and_is_tried_again(write, tmp_path, whole, break_case, monkeypatch):
    with monkeypatch.context():
        break_case(2, refuse)
        broken = run_study(write(), tmp_path / "broken")
    frame = broken.to_frame()
    assert list(frame["status"]) == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert set(frame.loc[frame["status"] == "failed", "error"]) == {"KeyError: 'oh'"}
    assert set(broken.kernels()["case"]) == {1, 2, 5, 6}
    monkeypatch.undo()
    mended = run_study(write(), broken.folder)
    assert (mended.cached, mended.failed) == (4, 0)
    assert contents(mended.folder) == contents(whole.folder)


def test_what_does_not_fit_is_a_row_with_the_reason(write, tmp_path):
    result = run_study(write(), tmp_path / "big", settings=["matrix.batch=[1, 1G]"])
    assert (result.ok, result.failed) == (2, 2)
    assert "does not fit in the memories of sn40l" in result.to_frame()["error"].iloc[-1]


def test_a_worker_that_dies_costs_only_its_case(write, tmp_path, break_case, monkeypatch):
    monkeypatch.setattr(runner, "FEW", 0)
    break_case(2, lambda: os._exit(9))
    result = run_study(write(), tmp_path / "died", jobs=2)
    frame = result.to_frame()
    assert list(frame["status"]) == ["ok", "ok", "failed", "failed", "ok", "ok"]
    assert frame["error"].iloc[2].startswith("the process that simulated this case died")


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupt_stores_what_is_done(write, tmp_path, whole, break_case, monkeypatch, jobs):
    monkeypatch.setattr(runner, "FEW", 0)

    def interrupt(progress):
        if progress.done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_study(write(), tmp_path / "cut", jobs=jobs, listener=interrupt)
    resumed = run_study(write(), tmp_path / "cut", jobs=jobs)
    assert 0 < resumed.cached <= 6
    assert contents(resumed.folder) == contents(whole.folder)


def test_a_capture_that_fails_fails_the_cases_of_its_phase(write, tmp_path, monkeypatch):
    from hwsim.capture import ZooModel
    from hwsim.errors import GraphError

    real = ZooModel.capture

    def capture(self, phase):
        if phase == "prefill":
            raise GraphError("no such graph")
        return real(self, phase)

    monkeypatch.setattr(ZooModel, "capture", capture)
    study = write("study: s\nmodels: [llama-3.2-1b]\nsystems: [sn40l]\nworkload: {phase: [prefill, decode, generate]}")
    frame = run_study(study, tmp_path / "out").to_frame()
    assert list(frame["status"]) == ["failed", "ok", "failed"]
    assert list(frame["error"]) == ["no such graph", "", "no such graph"]


def test_a_wrong_setting_of_a_model_stands_in_the_study(write, tmp_path):
    study = write("study: s\nmodels: [{name: llama-3.2-1b, layerz: 4}]\nsystems: [sn40l]")
    with pytest.raises(StudyError, match=r"study.yaml:2:10: models\[0\]: .*no setting 'layerz'; did you mean 'layers'"):
        run_study(study, tmp_path / "out")


def test_a_preview_stores_nothing(write, tmp_path, whole):
    before = preview_study(write(), tmp_path / "none")
    assert (len(before.plan.cases), len(before.cached)) == (6, 0)
    assert before.seconds > 0
    assert not (tmp_path / "none").exists()
    assert len(preview_study(write(), whole.folder).cached) == 6


def test_a_cluster_gives_the_same_bytes(write, tmp_path, whole, monkeypatch):
    """dask's client stands for any that offers an executor of concurrent.futures."""

    class Client:
        def __init__(self, address, timeout):
            assert address == "tcp://scheduler:8786"

        def __enter__(self):
            return self

        def __exit__(self, *failure):
            pass

        def get_executor(self):
            return ThreadPoolExecutor(2)

    monkeypatch.setitem(sys.modules, "distributed", types.SimpleNamespace(Client=Client))
    result = run_study(write(), tmp_path / "cluster", cluster="tcp://scheduler:8786")
    assert contents(result.folder) == contents(whole.folder)


def test_a_cluster_without_dask_says_what_to_install(write, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install 'hwsim\[dask\]'"):
        run_study(write(), tmp_path / "out", cluster="tcp://scheduler:8786")
    assert not (tmp_path / "out").exists()
