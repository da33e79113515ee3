"""How long a long answer with offloading takes to simulate: `python tests/benchmarks/offload.py`. Nothing is asserted.

32,768 tokens of a model on a GPU, its host and a drive, each way once to compile and once to time.
"""

from time import perf_counter

import hwsim
from hwsim.systemfile import load_system

SYSTEM = {"gpu": "nvidia-rtx-4090", "cpu": "amd-epyc-7742", "storage": "samsung-980-pro"}
WAYS = {
    "weights with the host": ("llama-3.1-8b", "offload", {"weights": [0.5, 0.5, 0], "cache": [0, 1, 0]}),
    "attention of the host": ("llama-3.1-8b", "offload", {"cache": [0, 1, 0], "attention": "host"}),
    "70B on three levels": ("llama-3.1-70b", "offload", {"weights": [0.1, 0.6, 0.3], "cache": [0, 1, 0]}),
    "70B, tiered": ("llama-3.1-70b", "tiered", {}),
    "70B, tiered by linear programming": ("llama-3.1-70b", "tiered", {"solver": "lp"}),
}


def main() -> None:
    """Print seconds per way."""
    system = load_system(SYSTEM)
    for name, (model, mapper, options) in WAYS.items():
        for _ in range(2):
            started = perf_counter()
            result = hwsim.estimate(
                model, system, phase="generate", prompt=1024, generate=32768, mapper=mapper, mapper_options=options
            )
            took = perf_counter() - started
        print(f"{name:36} {took:6.2f} s   {result.tokens_per_second:8.3f} tokens/s")


if __name__ == "__main__":
    main()
