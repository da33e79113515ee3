"""How long an offloaded decode of many tokens takes to simulate: `python tests/benchmarks/offload.py [TOKENS]`.

Nothing is asserted. The first run compiles the event engine, once per machine; every case is timed after one like it.
"""

import sys
from time import perf_counter

import hwsim

SYSTEM = {"gpu": "nvidia-a6000", "cpu": "amd-epyc-7742", "storage": ["samsung-980-pro", "samsung-980-pro"]}
ON_HOST = {"weights": [0.2, 0.8, 0.0], "cache": [0.0, 1.0, 0.0]}
ON_DRIVES = {"weights": [0.0, 0.5, 0.5], "cache": [0.0, 1.0, 0.0], "batches": 4}
CASES: tuple[tuple[str, str, dict[str, object]], ...] = (
    ("llama-3.1-8b", "offload", {**ON_HOST}),
    ("opt-30b", "offload", {**ON_DRIVES}),
    ("opt-13b", "instorage", {}),
    ("opt-30b", "tiered", {}),
)


def seconds(model: str, mapper: str, options: dict[str, object], tokens: int) -> tuple[float, float]:
    """Seconds that the simulation takes, and seconds that it finds."""
    started = perf_counter()
    sizes = {"batch": 4, "prompt": 512, "generate": tokens}
    result = hwsim.estimate(model, SYSTEM, phase="generate", mapper=mapper, mapper_options=options, **sizes)
    return perf_counter() - started, result.latency


def main() -> None:
    """Time all cases."""
    tokens = int(sys.argv[1]) if len(sys.argv) > 1 else 32768
    for model, mapper, options in CASES:
        seconds(model, mapper, options, 4)
        took, found = seconds(model, mapper, options, tokens)
        print(f"{took:8.2f} s  for {tokens} tokens of {model} with {mapper}, which take {found:.0f} s")


if __name__ == "__main__":
    main()
