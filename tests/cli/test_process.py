"""The command as a process: killed, interrupted, out of disk, behind a pipe, and quick to start."""

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HWSIM = (sys.executable, "-c", "import sys; from hwsim.cli import main; sys.exit(main())")
MANY = """\
study: many
models: [llama-3.2-1b]
systems: [sn40l]
workload: {phase: decode}
matrix: {batch: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], prompt: [128, 256, 384, 512, 640, 768, 896, 1k, 1152, 1280, 1408, 2k]}
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study of 120 cases."""
    path = tmp_path / "many.yaml"
    path.write_text(MANY, "utf-8")
    return path


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    command = [*HWSIM, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def finish(*arguments: object, **options: object) -> tuple[int, str, str]:
    process = start(*arguments, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_lines(folder: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Until the journals hold some cases."""
    while process.poll() is None:
        if sum(path.read_bytes().count(b"\n") for path in folder.glob("journal-*")) > count:
            return
        time.sleep(0.005)
    pytest.fail(f"over before it could be stopped: {process.communicate()[1]}")


def tables(folder: Path) -> tuple[bytes, bytes]:
    return (folder / "cases.parquet").read_bytes(), (folder / "kernels.parquet").read_bytes()


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, -15)])
def test_a_stopped_run_resumes_to_the_same_bytes(study, tmp_path, stop, code):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert finish("run", study, "--out", whole, "--no-report", "--jobs", 1)[0] == 0
    process = start("run", study, "--out", cut, "--no-report", "--jobs", 2)
    wait_for_lines(cut, 10, process)
    process.send_signal(stop)
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    if stop == signal.SIGINT:
        assert "interrupted: " in err
        assert "the same command does the others" in err
        assert "Traceback" not in err
    code, _, err = finish("run", study, "--out", cut, "--no-report", "--jobs", 2)
    assert code == 0
    stored = int(err.split(" of them stored before")[0].rsplit(" ", 1)[1])
    assert 8 <= stored < 120
    assert tables(cut) == tables(whole)


def test_a_full_disk_is_one_sentence_and_keeps_what_is_done(study, tmp_path):
    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = tmp_path / "out"
    code, _, err = finish("run", study, "--out", out, "--no-report", "--jobs", 1, preexec_fn=small_files)
    assert code == 2
    assert "cannot be written: File too large" in err
    assert "Traceback" not in err
    code, _, err = finish("run", study, "--out", out, "--no-report")
    assert code == 0
    assert int(err.split(" of them stored before")[0].rsplit(" ", 1)[1]) > 10


def test_workers_do_not_outlive_a_killed_run(study, tmp_path):
    process = start("run", study, "--out", tmp_path / "out", "--no-report", "--jobs", 2)
    wait_for_lines(tmp_path / "out", 4, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.kill()
    process.communicate()
    until = time.monotonic() + 10
    while any(Path(f"/proc/{child}/stat").exists() and not ended(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.05)


def ended(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_reader_that_leaves_is_no_error():
    listing = start("list", "models")
    assert listing.stdout is not None
    listing.stdout.close()
    assert listing.stderr is not None
    err = listing.stderr.read()
    assert listing.wait(timeout=30) == 0
    assert "Traceback" not in err


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys; from hwsim.cli import main; main(sys.argv[1:]); "
        "heavy = {'torch', 'plotly', 'pandas', 'numpy', 'pyarrow', 'yaml'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_estimate_with_a_stored_capture_imports_no_torch(tmp_path):
    arguments = ["estimate", "llama-3.2-1b", "--device", "sn40l"]
    assert finish(*arguments)[0] == 0  # captures the model if it is not stored yet
    code = "import sys; from hwsim.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert ran.returncode == 0
