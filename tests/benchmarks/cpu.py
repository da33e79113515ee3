"""How far `cpu-local` is from this machine.

    python tests/benchmarks/cpu.py [--fresh] [--seconds 150] [--seed 0] [--rows FILE]

Times kernels that the calibration has not seen and three whole models, each in eager torch and in ONNX Runtime, then
predicts them and prints both tables. Exit code 1 where a median error is above 20 %. Let the machine be idle.

Shapes are those that `hwsim measure --device cpu` draws, of at most some 50 ms. Kernels take turns in rounds, and a
low quantile of the rounds counts, since others on the machine can only add to a time. ``--fresh`` measures the card
anew first, which tells how long a first use takes; ``--rows`` keeps the timings, and reads them where the file exists.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hwsim.device import Device, estimate_all, load_device
from hwsim.devices.cpu import bench
from hwsim.kernels.families import Draw, Limits
from hwsim.kernels.suites import kernel_families
from hwsim.kernels.suites_model import build_model, model_specs
from hwsim.kernels.timers import last_level_cache_bytes
from hwsim.measured_kernels import measured_kernels
from hwsim.measured_models import measured_result
from hwsim.measurements import Measurement

CPU = torch.device("cpu")
LIMITS = Limits(4e8, 2e9, 6.4e7, 0.0, ("fp32", "fp32", "bf16", "int8"))
DRAWS = 6  # of each op, more of those that matter more
ROUNDS, LOW, MODEL_RUNS = 8, 0.2, 7
LONGEST_S = 0.05
MOST_ERROR = 0.2
Call = Callable[[], object]


def drawn(seed: int) -> Iterator[dict[str, Any]]:
    """Kernels that the calibration has not seen."""
    seen = {json.dumps(dict(spec), sort_keys=True) for spec in bench.all_specs()}
    for op, family in kernel_families(CPU).items():
        draw = Draw(f"acceptance {seed}/{op}", CPU)
        draw.limits = LIMITS
        specs = family.specs(draw)
        for _ in range(DRAWS * family.weight):
            spec = {"op": op, **next(specs)}
            if json.dumps(spec, sort_keys=True) not in seen:
                yield spec


def time_kernels(seconds: float, seed: int) -> list[Measurement]:
    """Every drawn kernel cold and warm, in rounds over groups that fit in memory."""
    families, specs = kernel_families(CPU), list(drawn(seed))
    groups = [specs[start::8] for start in range(8)]
    rows = []
    for group in groups:
        calls = [
            (spec, families[spec["op"]].build(CPU, **{k: v for k, v in spec.items() if k != "op"})) for spec in group
        ]
        rows += time_group([(spec, call) for spec, call in calls if quick(call)], seconds / len(groups))
    return rows


def quick(call: Call) -> bool:
    """Whether a second call is short enough to be repeated many times."""
    call()
    return elapsed(call) < LONGEST_S


def time_group(calls: list[tuple[dict[str, Any], Call]], seconds: float) -> list[Measurement]:
    """Rounds over the calls, each after the caches were overwritten and then repeated."""
    flush = torch.ones(4 * last_level_cache_bytes() // 4)
    cold: list[list[float]] = [[] for _ in calls]
    warm: list[list[float]] = [[] for _ in calls]
    until = time.perf_counter() + seconds
    while len(cold[0]) < ROUNDS or time.perf_counter() < until:
        for (_, call), colds, warms in zip(calls, cold, warm, strict=True):
            for _ in range(2):
                flush.add_(1.0)
                once = elapsed(call)
            colds.append(once)
            elapsed(call)
            warms.append(elapsed(call, max(1, min(50, int(3e-4 / elapsed(call))))))
    return [
        Measurement(spec, float(np.quantile(colds, LOW)), float(np.quantile(warms, LOW)), None)
        for (spec, _), colds, warms in zip(calls, cold, warm, strict=True)
    ]


def elapsed(call: Call, count: int = 1) -> float:
    """Seconds per call."""
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


def time_models() -> list[Measurement]:
    """Every whole model of the suite in both modes."""
    rows = []
    for fields in model_specs(CPU):
        call = build_model(CPU, **fields)  # type: ignore[arg-type]
        call()
        seconds = float(np.quantile([elapsed(call) for _ in range(MODEL_RUNS)], LOW))
        rows.append(Measurement({"op": "model", **fields}, None, seconds, None))
        print(f"{fields['model']} {fields['mode']}: {seconds * 1e3:.1f} ms", file=sys.stderr)
    return rows


def kernel_table(rows: list[Measurement], device: Device) -> float:
    """Errors by family and state; the median of all."""
    errors: list[float] = []
    print(f"{'family':28} {'state':5} {'rows':>4} {'median':>7} {'mean':>6} {'predicted/measured':>19}")
    for kernels in measured_kernels(rows, device):
        costs = estimate_all(kernels.on(device), kernels.kernels)
        measured = np.array(kernels.measured("seconds"), dtype=float)
        ratios = np.array([cost.seconds for cost in costs]) / measured
        found = np.abs(ratios - 1)
        errors += found.tolist()
        middle = float(np.exp(np.mean(np.log(ratios))))
        state, line = str(kernels.cache), f"{np.median(found):7.1%} {np.mean(found):6.1%} {middle:19.2f}"
        print(f"{kernels.family:28} {state:5} {len(ratios):4} {line}")
    print(f"{'all':34} {len(errors):4} {np.median(errors):7.1%} {np.mean(errors):6.1%}\n")
    return float(np.median(errors))


def model_table(rows: list[Measurement], device: Device) -> float:
    """Each model's error; the median of all."""
    errors = []
    print(f"{'model':14} {'mode':12} {'batch':>5} {'prompt':>6} {'measured':>10} {'predicted':>10} {'ratio':>6}")
    for row in rows:
        result = measured_result(row, device)
        if result is None or row.seconds_warm is None:
            continue
        spec, ratio = row.spec, result.latency / row.seconds_warm
        errors.append(abs(ratio - 1))
        times = f"{row.seconds_warm * 1e3:7.1f} ms {result.latency * 1e3:7.1f} ms {ratio:6.2f}"
        print(f"{spec['model']:14} {spec['mode']:12} {spec['batch']:5} {spec['prompt']:6} {times}")
    print(f"median error of models: {np.median(errors):.1%}")
    return float(np.median(errors))


def measured(seconds: float, seed: int, kept: Path | None) -> tuple[list[Measurement], list[Measurement]]:
    """Kernels and models timed, or read from the file that keeps them."""
    if kept is not None and kept.exists():
        rows = [Measurement(*json.loads(line)) for line in kept.read_text().splitlines()]
        return [r for r in rows if r.op != "model"], [r for r in rows if r.op == "model"]
    with torch.inference_mode():
        kernels, models = time_kernels(seconds, seed), time_models()
    if kept is not None:
        lines = [json.dumps([dict(r.spec), r.seconds_cold, r.seconds_warm, None]) for r in kernels + models]
        kept.write_text("\n".join(lines) + "\n")
    return kernels, models


def main() -> int:
    """Measure, predict, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--fresh", action="store_true", help="measure the card anew, elsewhere than the cached one")
    parser.add_argument("--seconds", type=float, default=150.0, help="for the kernels (default: 150)")
    parser.add_argument("--seed", type=int, default=0, help="of the shapes (default: 0)")
    parser.add_argument("--rows", type=Path, help="file of the timings")
    given = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {torch.get_num_threads()} threads", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        if given.fresh:
            os.environ["XDG_CACHE_HOME"] = folder
        start = time.perf_counter()
        device = load_device("cpu-local")
        print(f"card loaded in {time.perf_counter() - start:.1f} s")
        kernels, models = measured(given.seconds, given.seed, given.rows)
        worst = max(kernel_table(kernels, device), model_table(models, device))
    return int(worst > MOST_ERROR)


if __name__ == "__main__":
    sys.exit(main())
