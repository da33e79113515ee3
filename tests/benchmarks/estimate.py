"""How many whole estimates a second: `python tests/benchmarks/estimate.py [MODEL] [DEVICE]`. Nothing is asserted.

Each line is microseconds per estimate, the best of several rounds over decode cases that all differ: on the device, and
on one whose every estimate is a constant, which leaves what the rest of hwsim takes.
"""

import sys
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import hwsim
from hwsim.cost import Cost
from hwsim.device import Tags
from hwsim.mapper import Kernel

CASES = 300
ROUNDS = 5
COST = Cost(1e-6, 1e-6, {"hbm": 1.0}, {"hbm": 1e-6}, "hbm")


class Constant:
    """A device that takes no time to ask."""

    def __init__(self, device: Any) -> None:
        self.card, self.tags = device.card, Tags(graph_launch=True)
        self.asked = 0

    def estimate(self, kernel: Kernel) -> Cost:
        """The same for every kernel."""
        return COST

    def estimate_all(self, kernels: Sequence[Kernel]) -> list[Cost]:
        """Counts the kernels."""
        self.asked += len(kernels)
        return [COST] * len(kernels)

    def host_seconds(self, kernel: Kernel) -> float:
        """None."""
        return 0.0


def best(model: str, device: Any) -> float:
    """Seconds per estimate."""
    rounds = []
    for number in range(ROUNDS):
        started = perf_counter()
        for case in range(CASES):
            sizes = {"batch": 1 + case % 64, "prompt": 100 + 37 * case + number}
            hwsim.estimate(model, device, phase="decode", **sizes)
        rounds.append((perf_counter() - started) / CASES)
    return min(rounds)


def main() -> None:
    """Time both devices."""
    model, name = (*sys.argv[1:], *("llama-3.1-8b", "nvidia-h200")[len(sys.argv) - 1 :])
    device = hwsim.load_device(name)
    constant = Constant(device)
    for title, target in ((name, device), ("constant device", constant)):
        print(f"{best(model, target) * 1e6:8.0f}  us per estimate of {model}, {title}")
    print(f"{constant.asked / CASES / ROUNDS:8.0f}  kernels per estimate reach the device")


if __name__ == "__main__":
    main()
