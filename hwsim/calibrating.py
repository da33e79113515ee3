"""From measurement files to a calibration: which rows are fitted, in which order, and what the other rows say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from hwsim.calibration import Calibration, Fitted, SourceRows, Told, has_own
from hwsim.card import Card
from hwsim.errors import InputError
from hwsim.fitting import Calibratable, Sample, fit, fitted_value, informed
from hwsim.kernel_family import END_TO_END
from hwsim.measured_kernels import MODEL, MeasuredKernels, measured_kernels
from hwsim.measured_models import EAGER, measured_result
from hwsim.measurements import Measurement, Measurements, split_rows
from hwsim.result import DEVICE, HOST
from hwsim.spreads import TAIL, Ratios, told_spreads, with_those_of

OVERHEAD = "host_launch_overhead"
HOST_BOUND = 0.7  # share of a row's time below which the device waits for the host
FOLDS = 2  # of the fitted rows: those of one are predicted with constants fitted to the others

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
    """Fit the constants of ``device`` to the seen rows of ``shares``: energies to joules at measured times, then times,
    which depend on them where power is limited, then energies again, at the clocks that go with these times.

    Constants that no row tells are taken from ``base`` (a calibration of a like device), else left as the card has
    them. Raises `InputError` where no row is a kernel of the device.
    """
    seen = [kernels for share in shares for kernels in measured_kernels(share.seen.rows, device)]
    values: dict[str, Fitted] = _inherited(base, device.card)
    for quantity in (Told.JOULES, Told.SECONDS, Told.JOULES):
        samples = _samples(_with(device, values), seen, quantity)
        if not samples and quantity == Told.SECONDS:
            raise InputError(f"no row of {', '.join(share.file.name for share in shares)} is a kernel of the device")
        names = [name for name, constant in device.constants.items() if constant.told == quantity]
        start = {**_start(device), **{name: known.value for name, known in values.items()}}
        if quantity == Told.JOULES:  # a like device's are no better a start than the card's own figures
            start |= {name: device.constants[name].neutral for name in names}
        told = informed(samples, names, start) if samples else []
        progress(f"{quantity}: {len(told)} constants from {sum(len(s.measured) for s in samples)} values")
        values |= fit(samples, told, start) if told else {}
    values |= _host(_with(device, values), shares)
    for name, known in values.items():
        if known.remark and not known.taken_from:
            progress(f"{name} = {known.value:.4g}: {known.remark}")
    return _described(device, shares, values, base)


def _with(device: Calibratable, values: Mapping[str, Fitted]) -> Calibratable:
    return device.with_constants({name: known.value for name, known in values.items()})


def _inherited(base: Calibration | None, card: Card) -> dict[str, Fitted]:
    """The constants of ``base``, but for those that ``card`` knows from a source of its own."""
    if base is None:
        return {}
    return {
        name: known.model_copy(update={"taken_from": known.taken_from or base.calibration})
        for name, known in base.constants.items()
        if not has_own(card, name)
    }


def _start(device: Calibratable) -> dict[str, float]:
    return {
        name: device.card.parameter(name, constant.uncalibrated(device.card))
        for name, constant in device.constants.items()
    }


def _alone(device: Calibratable) -> dict[str, float]:
    """The constants as ``device``'s card has them, whatever a calibration of it or of a like device says."""
    own = device.card.parameters
    return {
        name: constant.uncalibrated(device.card)
        for name, constant in device.constants.items()
        if name not in own or own[name].mark == "calibrated"
    }


def _samples(device: Calibratable, kernels: Iterable[MeasuredKernels], quantity: str) -> list[Sample]:
    """The samples of families in one state each, where that quantity was measured."""
    return [sample for one in kernels for sample in _sample(device, one, quantity)]


def _sample(device: Calibratable, kernels: MeasuredKernels, quantity: str) -> Iterator[Sample]:
    values, seconds = kernels.measured(quantity), kernels.measured("seconds")
    places = [i for i, value in enumerate(values) if value is not None and seconds[i] is not None]
    if not places:
        return
    picked = kernels.only(places)
    target = picked.on(device)
    assert isinstance(target, Calibratable)
    measured, taken = (np.array([column[i] for i in places], float) for column in (values, seconds))
    yield Sample(target, target.batches(picked.kernels), measured, taken if quantity == "joules" else None)


def _host(device: Calibratable, shares: Sequence[Share]) -> dict[str, Fitted]:
    """The host's time for one operator, from the seen models that it launches operator by operator.

    Each row alone tells the overhead with which the model takes as long as measured; rows that wait for the device
    tell nothing. The median counts, the 5th and 95th percentile bound it.
    """
    rows = [row for share in shares for row in share.seen.rows if row.spec.get("mode") == EAGER]
    if OVERHEAD not in device.constants or not rows:
        return {}
    told = [overhead for row in rows if (overhead := _overhead(device, row)) is not None]
    if not told:
        return {}
    low, middle, high = np.quantile(told, (TAIL, 0.5, 1 - TAIL))
    return {OVERHEAD: fitted_value(device.constants[OVERHEAD], float(middle), float(low), float(high))}


def _overhead(device: Calibratable, row: Measurement) -> float | None:
    """The overhead at which ``row`` is as slow as measured; None where the device alone takes longer than half."""
    constant = device.constants[OVERHEAD]
    slow, fast = (
        measured_result(row, device.with_constants({OVERHEAD: value})) for value in (constant.high, constant.low)
    )
    if slow is None or fast is None or row.seconds_warm is None or fast.latency > HOST_BOUND * row.seconds_warm:
        return None
    return constant.high * row.seconds_warm / slow.latency  # at the upper bound the host sets the time alone


def _described(
    device: Calibratable, shares: Sequence[Share], values: Mapping[str, Fitted], base: Calibration | None
) -> Calibration:
    """The calibration with its spreads, and those of the card alone: bounds from seen rows, errors of unseen ones."""
    fitted, alone = _with(device, values), device.with_constants(_alone(device))
    seen = [row for share in shares for row in share.seen.rows]
    unseen = [row for share in shares for row in share.unseen.rows]
    held = [*_cross_fitted(device, shares, values, base), *_model_ratios(fitted, seen)]
    spreads = told_spreads(held, _ratios(fitted, unseen))
    return Calibration(
        calibration=device.card.name,
        device=device.card.name,
        family=device.card.family,
        generation=device.card.generation,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        sources=[_source(share, _is_fitted(OVERHEAD, values)) for share in shares],
        constants={name: values[name] for name in device.constants if name in values},
        spreads=with_those_of(base, spreads) if base else spreads,
        uncalibrated=told_spreads(_ratios(alone, seen), _ratios(alone, unseen)),
    )


def _cross_fitted(
    device: Calibratable, shares: Sequence[Share], values: Mapping[str, Fitted], base: Calibration | None
) -> Iterator[Ratios]:
    """The ratios of seen rows, each predicted with constants that were fitted to the rows of the other fold.

    Fits start where that of all rows did, not from its outcome, which knows the rows that are held out; energies, which
    say little of times, are those of all rows.
    """
    names = [name for name in values if device.constants[name].told == Told.SECONDS]
    start = {**_start(device), **{name: known.value for name, known in _inherited(base, device.card).items()}}
    start |= {name: known.value for name, known in values.items() if device.constants[name].told == Told.JOULES}
    started = device.with_constants(start)
    for fold in range(FOLDS):
        split = [split_rows(share.seen.rows, FOLDS * share.parts, fold * share.parts) for share in shares]
        samples = _samples(started, (one for _, rows in split for one in measured_kernels(rows, device)), "seconds")
        told = informed(samples, names, start) if samples else []
        again = {name: known.value for name, known in fit(samples, told, start).items()} if told else {}
        for held, _ in split:
            yield from _kernel_ratios(started.with_constants(again), held)


def _ratios(device: Calibratable, rows: Sequence[Measurement]) -> Iterator[Ratios]:
    yield from _kernel_ratios(device, rows)
    yield from _model_ratios(device, rows)


def _kernel_ratios(device: Calibratable, rows: Iterable[Measurement]) -> Iterator[Ratios]:
    for kernels in measured_kernels(rows, device):
        for sample in _sample(device, kernels, "seconds"):
            yield kernels.family, str(kernels.cache), list(np.exp(-sample.errors({}))[:, None])


def _model_ratios(device: Calibratable, rows: Iterable[Measurement]) -> Iterator[Ratios]:
    """The ratios of whole models, one unit a network, by what set their pace: measured over what that alone takes."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        result = measured_result(row, device) if row.op == MODEL and row.seconds_warm else None
        if result is not None and row.seconds_warm:
            paces = result.paces
            waited = paces[HOST] > 0 and paces[DEVICE] < HOST_BOUND * row.seconds_warm
            pace = HOST if waited else DEVICE
            found.setdefault((pace, str(row.spec["model"])), []).append(row.seconds_warm / paces[pace])
    for (pace, _), ratios in found.items():
        yield END_TO_END, pace, [np.array(ratios)]


def _is_fitted(name: str, values: Mapping[str, Fitted]) -> bool:
    return name in values and not values[name].taken_from


def _source(share: Share, host: bool) -> SourceRows:
    """What is used of a file: seen kernels, and seen models run operator by operator where they tell the ``host``'s
    time."""
    fitted = [row for row in share.seen.rows if row.op != MODEL or (host and row.spec.get("mode") == EAGER)]
    wanted = ("device", "versions", "driver", "date", "source")
    made_with = [line for line in share.file.header if line.startswith(wanted)]
    return SourceRows(
        measurements=share.file.name,
        rows=len(share.file.rows),
        fitted=len(fitted),
        parts=share.parts,
        made_with=list(dict.fromkeys(made_with)),
    )
