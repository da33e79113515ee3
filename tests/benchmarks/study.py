"""How fast studies run and commands start: `python tests/benchmarks/study.py [CASES]`. Nothing is asserted.

Each line is a wall time in seconds; the study is a thousand decode cases of Llama 3.1 8B on four GPUs.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

from hwsim.study import run_study

DEVICES = ("nvidia-h200", "nvidia-h100-sxm", "nvidia-a100-80gb", "nvidia-a6000")
BATCHES = 10
HWSIM = (sys.executable, "-c", "import sys; from hwsim.cli import main; sys.exit(main())")
ESTIMATE = ("estimate", "llama-3.1-8b", "--device", "nvidia-h200", "--batch", "8", "--prompt", "2048")


def study_of(cases: int) -> str:
    """A study of about this many cases."""
    prompts = max(1, cases // (len(DEVICES) * BATCHES))
    return (
        f"study: speed\nmodels: [llama-3.1-8b]\nsystems: [{', '.join(DEVICES)}]\nspill: true\n"
        f"workload: {{phase: decode}}\nmatrix: {{batch: {[2**n for n in range(BATCHES)]}, "
        f"prompt: {[128 + 512 * n for n in range(prompts)]}}}\n"
    )


def seconds(*arguments: str) -> float:
    """Wall time of one command."""
    started = perf_counter()
    subprocess.run([*HWSIM, *arguments], check=True, capture_output=True)
    return perf_counter() - started


def main() -> None:
    """Time a study from scratch with one process and with all, the same study stored, and two commands."""
    cases = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "study.yaml"
        path.write_text(study_of(cases), "utf-8")
        for title, out, jobs in (("1 process", "one", 1), ("all CPUs", "all", None), ("stored", "all", None)):
            done = run_study(path, Path(folder) / out, jobs=jobs)
            print(f"{done.seconds:8.2f}  {done.ok} cases, {title}")
    print(f"{seconds(*ESTIMATE):8.2f}  hwsim {' '.join(ESTIMATE)}")
    print(f"{seconds('--help'):8.2f}  hwsim --help")


if __name__ == "__main__":
    main()
