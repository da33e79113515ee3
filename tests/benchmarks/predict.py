"""How many kernels a second: `python tests/benchmarks/predict.py [KERNELS] [DEVICE]`. Nothing is asserted.

The kernels are of mixed ops with log-uniform sizes, all different. Lines are microseconds per kernel, the best of
several rounds: checked and made, predicted, and predicted by the command with JSON read and written.
"""

import json
import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from hwsim.device import load_device
from hwsim.kernel_ops import SPEC_OPS, Field
from hwsim.kernel_spec import predict, spec_kernel

ROUNDS = 5
LARGEST = {"batch": 64, "heads": 64, "head_dim": 256, "d_k": 256, "d_v": 256, "k": 5, "stride": 3, "ranks": 8}
WORDS = {"dtype": ("bf16", "fp16", "fp32")}
FIXED = {"kv_heads": 1, "groups": 1, "padding": 2, "chunk": 64}
HWSIM = (sys.executable, "-c", "import sys; from hwsim.cli import main; sys.exit(main())")


def specs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random kernels that any device takes."""
    chance = random.Random(seed)
    names = [name for name in SPEC_OPS if not name.startswith(("all_", "reduce_", "copy_peer"))]

    def drawn(name: str, kind: Field) -> Any:
        if name in FIXED:
            return FIXED[name]
        if kind.choices:
            return chance.choice(WORDS.get(name, kind.choices))
        low, high = max(kind.least, 1), LARGEST.get(name, 8192)
        return round(math.exp(chance.uniform(math.log(low), math.log(high))))

    ops = (chance.choice(names) for _ in range(count))
    return [{"op": op, **{name: drawn(name, kind) for name, kind in SPEC_OPS[op].fields.items()}} for op in ops]


def best(kernels: int, action: Callable[[], object]) -> float:
    """Microseconds per kernel."""
    rounds = []
    for _ in range(ROUNDS):
        started = perf_counter()
        action()
        rounds.append(perf_counter() - started)
    return min(rounds) / kernels * 1e6


def main() -> None:
    """Time the parts and the command."""
    count, name = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, sys.argv[2] if len(sys.argv) > 2 else "nvidia-h200"
    made, device = specs(count), load_device(name)
    some = made[:1000]
    print(
        f"{best(len(some), lambda: [spec_kernel(spec, device) for spec in some]):8.1f}  us to check and make a kernel"
    )
    print(f"{best(count, lambda: predict(made, device)):8.1f}  us to predict a kernel, {count} at once")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ops.json"
        path.write_text(json.dumps(made), "utf-8")
        command = [*HWSIM, "predict", str(path), "--device", name, "--json"]
        shown = best(count, lambda: subprocess.run(command, check=True, capture_output=True))
        print(f"{shown:8.1f}  us a kernel for the command, its start included")


if __name__ == "__main__":
    main()
