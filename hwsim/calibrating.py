"""From measurement files to a calibration: which rows are fitted, in which order, and what the other rows say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeAlias

import numpy as np

from hwsim.calibration import Calibration, Fitted, SourceRows, SpreadFile, Told, has_own
from hwsim.card import Card
from hwsim.errors import InputError
from hwsim.fitting import Array, Calibratable, Sample, fit, fitted_value, informed
from hwsim.kernel_family import END_TO_END
from hwsim.measured_kernels import MODEL, MeasuredKernels, measured_kernels
from hwsim.measured_models import EAGER, measured_result
from hwsim.measurements import Measurement, Measurements, split_rows

FEW_ROWS = 8  # below which a family and state tells no spread
HOST = "host_launch_overhead"
HOST_BOUND = 0.7  # share of a row's time below which the device waits for the host
TAIL, CONFIDENCE = 0.05, 0.9  # of the rows lie below, and as many above the bounds of a spread; how sure that is
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
    if HOST not in device.constants or not rows:
        return {}
    told = [overhead for row in rows if (overhead := _overhead(device, row)) is not None]
    if not told:
        return {}
    low, middle, high = np.quantile(told, (TAIL, 0.5, 1 - TAIL))
    return {HOST: fitted_value(device.constants[HOST], float(middle), float(low), float(high))}


def _overhead(device: Calibratable, row: Measurement) -> float | None:
    """The overhead at which ``row`` is as slow as measured; None where the device alone takes longer than half."""
    constant = device.constants[HOST]
    slow, fast = (measured_result(row, device.with_constants({HOST: value})) for value in (constant.high, constant.low))
    if slow is None or fast is None or row.seconds_warm is None or fast.latency > HOST_BOUND * row.seconds_warm:
        return None
    return constant.high * row.seconds_warm / slow.latency  # at the upper bound the host sets the time alone


def _described(
    device: Calibratable, shares: Sequence[Share], values: Mapping[str, Fitted], base: Calibration | None
) -> Calibration:
    """The calibration with its spreads: bounds from seen rows, errors of the unseen ones."""
    fitted = _with(device, values)
    bounds = _gathered(
        list(_cross_fitted(device, shares, values, base))
        + [found for share in shares for found in _model_ratios(fitted, share.seen)]
    )
    errors = _gathered([found for share in shares for found in _ratios(fitted, share.unseen)])
    spreads: dict[str, dict[str, SpreadFile]] = {}
    for (family, state), ratios in bounds.items():
        unseen = errors.get((family, state), np.empty(0))
        if len(ratios) >= FEW_ROWS:
            low, high = spread_bounds(ratios)
            mape = float(np.mean(np.abs(1 / unseen - 1))) if len(unseen) else None
            spread = SpreadFile(rows=len(unseen), low=low, high=high, mape=mape)
            spreads.setdefault(family, {})[state] = spread
    return Calibration(
        calibration=device.card.name,
        device=device.card.name,
        family=device.card.family,
        generation=device.card.generation,
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        sources=[_source(share, _is_fitted(HOST, values)) for share in shares],
        constants={name: values[name] for name in device.constants if name in values},
        spreads=spreads,
    )


def spread_bounds(ratios: Array) -> tuple[float, float]:
    """The bounds within which at least 90 % of further ratios lie, with 90 % confidence, from some that have the same
    distribution.

    What lies between the i-th smallest and the i-th largest of n is a share of the distribution that is itself
    distributed as Beta(n + 1 - 2 i, 2 i), whatever the distribution is (Wilks, 1941). Where too few are known for an i
    of 1, a normal distribution of the logarithm is assumed (Howe, JASA 64, 1969), and all of them are within.
    """
    from scipy.optimize import brentq
    from scipy.stats import beta, chi2, norm

    count, logs, held = len(ratios), np.log(ratios), 1 - 2 * TAIL
    beyond = brentq(lambda i: beta.cdf(held, count + 1 - 2 * i, 2 * i) - (1 - CONFIDENCE), 1e-3, count / 4)
    low, high = np.quantile(logs, (beyond / (count + 1), 1 - beyond / (count + 1)), method="weibull")
    if beyond < 1:
        spread = np.std(logs, ddof=1) * np.sqrt((count - 1) * (1 + 1 / count) / chi2.ppf(1 - CONFIDENCE, count - 1))
        margin = norm.ppf(1 - TAIL) * spread
        low, high = min(low, logs.mean() - margin), max(high, logs.mean() + margin)
    return float(np.exp(low)), float(np.exp(high))


Ratios: TypeAlias = tuple[str, str, Array]  # of a family and state: measured over predicted


def _gathered(found: Iterable[Ratios]) -> dict[tuple[str, str], Array]:
    gathered: dict[tuple[str, str], list[Array]] = {}
    for family, state, ratios in found:
        gathered.setdefault((family, state), []).append(ratios)
    return {key: np.concatenate(parts) for key, parts in gathered.items()}


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


def _ratios(device: Calibratable, file: Measurements) -> Iterator[Ratios]:
    yield from _kernel_ratios(device, file.rows)
    yield from _model_ratios(device, file)


def _kernel_ratios(device: Calibratable, rows: Iterable[Measurement]) -> Iterator[Ratios]:
    for kernels in measured_kernels(rows, device):
        for sample in _sample(device, kernels, "seconds"):
            yield kernels.family, str(kernels.cache), np.exp(-sample.errors({}))


def _model_ratios(device: Calibratable, file: Measurements) -> Iterator[Ratios]:
    for row in file.rows:
        result = measured_result(row, device) if row.op == MODEL and row.seconds_warm else None
        if result is not None and row.seconds_warm:
            yield END_TO_END, str(row.spec.get("mode", "graph")), np.array([row.seconds_warm / result.latency])


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
