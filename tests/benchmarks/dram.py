"""How many bursts a second: `python tests/benchmarks/dram.py [REQUESTS] [CARD ...]`. Nothing is asserted.

A line is one pattern on one card: millions of bursts per second of processor time, the best of several rounds.
"""

import sys
from time import process_time

from hwsim.devices.dram.card import load_dram
from hwsim.devices.dram.simulate import Question, simulate

ROUNDS = 3
CARDS = ("ddr4-3200", "ddr5-4800", "hbm2", "hbm3", "lpddr5-6400", "gddr6-14000")
LOADS = (("stream", 1.0), ("linear", 1.0), ("random", 1.0), ("stream", 0.67), ("random", 0.5))


def main() -> None:
    """Time every pattern on every card, the making of the load included."""
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 200_000
    for name in sys.argv[2:] or CARDS:
        card = load_dram(name)
        simulate(card, Question(requests=1000))
        for pattern, share in LOADS:
            rounds = []
            for _ in range(ROUNDS):
                started = process_time()
                simulate(card, Question(pattern, requests, read_share=share))
                rounds.append(process_time() - started)
            print(
                f"{requests / min(rounds) / 1e6:8.2f} M bursts/s  {name:12} {pattern:7} {share:.0%} reads", flush=True
            )


if __name__ == "__main__":
    main()
