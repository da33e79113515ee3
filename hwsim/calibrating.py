"""From measurement files to a calibration: which rows are fitted, in which order, and what the other rows say of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from hwsim.calibration import Calibration, Fitted, SourceRows, SpreadFile
from hwsim.errors import InputError
from hwsim.fitting import Array, Calibratable, Sample, fit, informed
from hwsim.kernel_family import END_TO_END
from hwsim.measured_kernels import MODEL, MeasuredKernels, measured_kernels
from hwsim.measured_models import measured_result
from hwsim.measurements import Measurement, Measurements, split_rows

FEW_ROWS = 8  # below which a family and state tells no spread
HOST, EAGER = "host_launch_overhead", "eager"
HOST_BOUND = 0.7  # share of a row's time below which the device waits for the host
TAIL = 0.05  # of the rows lie below, and as many above the bounds of a spread

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Share:
    """How many rows of a file are fitted: one of ``parts`` equal shares, picked by a hash of their shapes."""

    file: Measurements
    parts: int

    @property
    def seen(self) -> Measurements:
        """The rows that are fitted."""
        return Measurements(self.file.name, self.file.header, split_rows(self.file.rows, self.parts)[0])

    @property
    def unseen(self) -> Measurements:
        """All other rows."""
        return Measurements(self.file.name, self.file.header, split_rows(self.file.rows, self.parts)[1])


def calibrate(
    device: Calibratable, shares: Sequence[Share], base: Calibration | None = None, progress: Progress = print
) -> Calibration:
    """Fit the constants of ``device`` to the seen rows of ``shares``, first to times, then those of energy to joules.

    Constants that no row tells are taken from ``base`` (a calibration of a like device), else left as the card has
    them. Raises `InputError` where no row is a kernel of the device.
    """
    seen = [kernels for share in shares for kernels in measured_kernels(share.seen.rows, device)]
    values: dict[str, Fitted] = _inherited(base)
    for quantity in ("seconds", "joules"):
        samples = [sample for kernels in seen for sample in _samples(device, kernels, quantity)]
        if not samples and quantity == "seconds":
            raise InputError(f"no row of {', '.join(share.file.name for share in shares)} is a kernel of the device")
        energy = quantity == "joules"
        names = [
            name for name, constant in device.constants.items() if constant.energy is energy and not constant.fixed
        ]
        start = {**_start(device), **{name: known.value for name, known in values.items()}}
        if energy:  # a like device's are no better a start than the card's own figures
            start |= {name: device.constants[name].neutral for name in names}
        told = informed(samples, names, start) if samples else []
        progress(f"{quantity}: {len(told)} constants from {sum(len(s.measured) for s in samples)} values")
        values |= fit(samples, told, start) if told else {}
    values |= _host(device.with_constants({name: known.value for name, known in values.items()}), shares)
    return _described(device, shares, values)


def _inherited(base: Calibration | None) -> dict[str, Fitted]:
    if base is None:
        return {}
    return {
        name: known.model_copy(update={"taken_from": known.taken_from or base.calibration})
        for name, known in base.constants.items()
    }


def _start(device: Calibratable) -> dict[str, float]:
    return {name: device.card.parameter(name, constant.neutral) for name, constant in device.constants.items()}


def _samples(device: Calibratable, kernels: MeasuredKernels, quantity: str) -> list[Sample]:
    """The sample of one family in one state, where that quantity was measured."""
    values, seconds = kernels.measured(quantity), kernels.measured("seconds")
    places = [i for i, value in enumerate(values) if value is not None and seconds[i] is not None]
    if not places:
        return []
    picked = kernels.only(places)
    target = picked.on(device)
    assert isinstance(target, Calibratable)
    measured, taken = (np.array([column[i] for i in places], float) for column in (values, seconds))
    return [Sample(target, target.batches(picked.kernels), measured, taken if quantity == "joules" else None)]


def _host(device: Calibratable, shares: Sequence[Share]) -> dict[str, Fitted]:
    """The host's time for one operator, from models that it launches operator by operator.

    Each row alone tells the overhead with which the model takes as long as measured; rows that wait for the device
    tell nothing. The median counts, the 5th and 95th percentile bound it.
    """
    rows = [row for share in shares for row in share.file.rows if row.spec.get("mode") == EAGER]
    if HOST not in device.constants or not rows:
        return {}
    told = [overhead for row in rows if (overhead := _overhead(device, row)) is not None]
    if not told:
        return {}
    low, middle, high = np.quantile(told, (TAIL, 0.5, 1 - TAIL))
    return {HOST: Fitted(value=float(middle), low=float(low), high=float(high), unit="s")}


def _overhead(device: Calibratable, row: Measurement) -> float | None:
    """The overhead at which ``row`` is as slow as measured; None where the device alone takes longer than half."""
    constant = device.constants[HOST]
    slow, fast = (measured_result(row, device.with_constants({HOST: value})) for value in (constant.high, constant.low))
    if slow is None or fast is None or row.seconds_warm is None or fast.latency > HOST_BOUND * row.seconds_warm:
        return None
    return constant.high * row.seconds_warm / slow.latency  # at the upper bound the host sets the time alone


def _described(device: Calibratable, shares: Sequence[Share], values: Mapping[str, Fitted]) -> Calibration:
    """The calibration with the spreads of the unseen rows."""
    fitted = device.with_constants({name: known.value for name, known in values.items()})
    spreads: dict[str, dict[str, SpreadFile]] = {}
    for family, state, ratios in _ratios(fitted, [_checked(share) for share in shares]):
        if len(ratios) >= FEW_ROWS:
            low, high = np.quantile(ratios, (TAIL, 1 - TAIL))
            mape = float(np.mean(np.abs(1 / ratios - 1)))
            spread = SpreadFile(rows=len(ratios), low=float(low), high=float(high), mape=mape)
            spreads.setdefault(family, {})[state] = spread
    return Calibration(
        calibration=device.card.name,
        device=device.card.name,
        family=device.card.family,
        generation=device.card.generation,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        sources=[_source(share) for share in shares],
        constants={name: values[name] for name in device.constants if name in values},
        spreads=spreads,
    )


def _checked(share: Share) -> Measurements:
    """The rows that constants were not fitted to; whole models are never fitted, but for the host's overhead."""
    rows = (*share.unseen.rows, *(row for row in share.seen.rows if row.op == MODEL))
    return Measurements(share.file.name, share.file.header, rows)


def _ratios(device: Calibratable, files: Sequence[Measurements]) -> list[tuple[str, str, Array]]:
    """(family, state, measured over predicted) of all kernels and models of ``files``."""
    gathered: dict[tuple[str, str], list[Array]] = {}
    for file in files:
        for kernels in measured_kernels(file.rows, device):
            for sample in _samples(device, kernels, "seconds"):
                gathered.setdefault((kernels.family, str(kernels.cache)), []).append(np.exp(-sample.errors({})))
        for row in file.rows:
            result = measured_result(row, device) if row.op == MODEL and row.seconds_warm else None
            if result is not None and row.seconds_warm:
                mode = str(row.spec.get("mode", "graph"))
                gathered.setdefault((END_TO_END, mode), []).append(np.array([row.seconds_warm / result.latency]))
    return [(family, state, np.concatenate(parts)) for (family, state), parts in gathered.items()]


def _source(share: Share) -> SourceRows:
    kernels = [row for row in share.file.rows if row.op != MODEL]
    fitted = [row for row in share.seen.rows if row.op != MODEL]
    wanted = ("device", "versions", "driver", "date", "source")
    made_with = [line for line in share.file.header if line.startswith(wanted)]
    return SourceRows(
        measurements=share.file.name,
        rows=len(kernels),
        fitted=len(fitted),
        parts=share.parts,
        made_with=list(dict.fromkeys(made_with)),
    )
