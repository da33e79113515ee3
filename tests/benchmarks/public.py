"""How far the GPU family is from public tables (PyPI `aiconfigurator-core`), as docs/accuracy-public.md shows.

    python tests/benchmarks/public.py [SYSTEM ...] [--rows 3000] [--seed 0] [--write docs/accuracy-public.md]

Constants of each GPU are fitted to a random tenth of its table (at most 600 rows of each kind, so that a fit takes
about a minute) and tried on rows of the other nine tenths; the correction learns from the whole tenth. *Blind* are
predictions with the geometric mean of other GPUs' constants. ``--write`` replaces the tables between the page's marks.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from hwsim.calibration import Told
from hwsim.device import Device, estimate_all, load_device, plain_roofline
from hwsim.devices.gpu import Gpu
from hwsim.fitting import Calibratable, Sample, fit, informed
from hwsim.kernels.aiconfigurator import read_tables
from hwsim.measured_kernels import MeasuredKernels, measured_kernels
from hwsim.measurements import Measurement, Measurements, split_rows
from hwsim.residual import Residual

CARDS = {
    "h200_sxm": "nvidia-h200",
    "h100_sxm": "nvidia-h100-sxm",
    "a100_sxm": "nvidia-a100-80gb",
    "l40s": "nvidia-l40s",
    "b200_sxm": "nvidia-b200",
    "rtx_pro_6000_server": "nvidia-rtx-pro-6000",
}
GENERATIONS = {"h200_sxm": "hopper", "h100_sxm": "hopper"}
"""Systems that share one. RTX PRO 6000 has Ada's kernels and counts as a generation of its own, beside the B200's."""
FITTED, LEARNED = 600, 4000  # rows of a kind, at most
KINDS: Mapping[str, Callable[[Measurement], bool]] = {
    "products bf16": lambda row: row.op == "matmul" and row.spec["dtype"] == "bf16" and row.rotation > 1,
    "products fp8": lambda row: row.op == "matmul" and row.spec["dtype"] == "fp8",
    "prefill": lambda row: row.op == "attention_prefill",
    "decode": lambda row: row.op == "attention_decode",
}
OPS = ("matmul", "attention_prefill", "attention_decode")
BEGIN, END = "<!-- tables: python tests/benchmarks/public.py -->", "<!-- end of tables -->"


@dataclass
class System:
    """One GPU's table: rows by kind, the constants fitted to a tenth, errors by kind and way."""

    name: str
    seen: Mapping[str, list[Measurement]]
    unseen: Mapping[str, list[Measurement]]
    versions: str
    constants: Mapping[str, float] = field(default_factory=dict)
    errors: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)

    @classmethod
    def read(cls, name: str, rows: int, seed: int) -> System:
        """A sample of the table of ``name``."""
        table = read_tables(name, ops=OPS)
        seen, unseen = split_rows(table.rows)
        versions = sorted({line.split(": ")[1].split(",")[0] for line in table.header[1:]})
        few, many = (
            {kind: sampled(filter(wanted, part), most, seed) for kind, wanted in KINDS.items()}
            for part, most in ((seen, LEARNED), (unseen, rows))
        )
        return cls(name, few, many, ", ".join(versions))

    def device(self, constants: Mapping[str, float] | None = None) -> Gpu:
        """The card with these constants; without, as its datasheet has it."""
        device = load_device(CARDS[self.name], calibration=None)
        assert isinstance(device, Gpu)
        return device.with_constants(constants or {})

    def fit(self) -> None:
        """Fit the constants, and learn what is left over from all seen rows."""
        few, all_seen = (
            Measurements(f"aic:{self.name}", (), tuple(row for part in self.seen.values() for row in part[:most]))
            for most in (FITTED, LEARNED)
        )
        self.constants = fitted(self.device(), few)
        device = self.device(self.constants)
        self.check("a tenth", device)
        self.check("learned", device, Residual.train(device, [all_seen]))
        self.check("datasheet", self.device())
        self.check("roofline", plain_roofline(device.card))

    def check(self, way: str, device: Device, residual: Residual | None = None) -> None:
        """Keep the errors of ``device`` on the unseen rows."""
        for kind, rows in self.unseen.items():
            found = [predicted_error(kernels, device, residual) for kernels in measured_kernels(rows, device)]
            if found:
                self.errors[kind, way] = np.concatenate(found)


def fitted(device: Gpu, file: Measurements) -> dict[str, float]:
    """The constants of ``device`` that suit all rows of ``file``, as `hwsim calibrate` fits them."""
    samples = []
    for kernels in measured_kernels(file.rows, device):
        target = kernels.on(device)
        assert isinstance(target, Calibratable)
        samples.append(Sample(target, target.batches(kernels.kernels), np.array(kernels.measured("seconds"), float)))
    start = {name: device.chip[name] for name in device.constants}
    names = [name for name, known in device.constants.items() if known.told is Told.SECONDS]
    return {name: known.value for name, known in fit(samples, informed(samples, names, start), start).items()}


def sampled(rows: Iterable[Measurement], most: int, seed: int) -> list[Measurement]:
    """A random sample of at most so many rows."""
    found = list(rows)
    return [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:most]]


def predicted_error(kernels: MeasuredKernels, device: Device, residual: Residual | None) -> np.ndarray:
    """|predicted/measured - 1| of every kernel."""
    costs = estimate_all(kernels.on(device), kernels.kernels)
    ratios = residual.ratios(kernels, costs) if residual else 1.0
    seconds = ratios * np.array([cost.seconds for cost in costs])
    errors: np.ndarray = np.abs(seconds / np.array(kernels.measured("seconds"), dtype=float) - 1.0)
    return errors


def generation(name: str) -> str:
    """The generation of a system, as far as its kernels go."""
    return GENERATIONS.get(name, name)


def blind(systems: Sequence[System]) -> None:
    """Predict each system with the constants of the others, and of other generations alone."""
    for system in systems:
        others = [other for other in systems if other is not system]
        for way, chosen in (
            ("blind", others),
            ("other generations", [one for one in others if generation(one.name) != generation(system.name)]),
            ("from nvidia-h200", [one for one in others if one.name == "h200_sxm"]),
        ):
            if chosen:
                system.check(way, system.device(mean([one.constants for one in chosen])))


def mean(constants: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Geometric means of the constants that any of them has."""
    names = {name for known in constants for name in known}
    return {name: float(np.exp(np.mean([np.log(k[name]) for k in constants if name in k]))) for name in names}


WAYS = {
    "a tenth": "a tenth",
    "learned": "+ learned",
    "from nvidia-h200": "H200's constants",
    "blind": "blind",
    "other generations": "blind, other generations",
    "datasheet": "uncalibrated",
    "roofline": "roofline",
}


def tables(systems: Sequence[System]) -> str:
    """A table of mean (median) errors for each kind of kernel."""
    lines = [f"{datetime.now(UTC):%Y-%m-%d}, means of |predicted/measured - 1|, medians in brackets."]
    for kind in KINDS:
        lines += ["", f"## {kind.capitalize()}", "", f"| GPU | unseen rows | {' | '.join(WAYS.values())} |"]
        lines.append("|---|---:|" + "---:|" * len(WAYS))
        for system in systems:
            if (kind, "a tenth") in system.errors:
                cells = [cell(system.errors.get((kind, way))) for way in WAYS]
                rows = len(system.errors[kind, "a tenth"])
                lines.append(f"| {CARDS[system.name]} | {rows:,} | {' | '.join(cells)} |")
    lines += ["", "Tables: " + "; ".join(f"{CARDS[one.name]} {one.versions}" for one in systems) + "."]
    return "\n".join(lines)


def cell(errors: np.ndarray | None) -> str:
    """Mean and median in percent."""
    return "" if errors is None else f"{np.mean(errors):.1%} ({np.median(errors):.1%})"


def main() -> int:
    """Fit, try and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("systems", nargs="*", default=list(CARDS), metavar="SYSTEM")
    parser.add_argument("--rows", type=int, default=3000, help="unseen rows of a kind, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="the page whose tables are replaced")
    asked = parser.parse_args()
    systems = []
    for name in asked.systems:
        start = time.perf_counter()
        systems.append(System.read(name, asked.rows, asked.seed))
        systems[-1].fit()
        print(f"{name}: {time.perf_counter() - start:.0f} s, {dict(systems[-1].constants)}", file=sys.stderr)
    blind(systems)
    text = tables(systems)
    print(text)
    if asked.write:
        before, _, rest = asked.write.read_text("utf-8").partition(BEGIN)
        asked.write.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
