"""The kernel interchange: one JSON object a kernel, such as ``{"op": "matmul", "m": 8, "n": 8, "k": 8, ...}``.

`spec_kernel` makes a kernel of an object through the graph's ops and work formulas, `predict` estimates a list of
them. Objects keep whatever else they hold (a name, measured times).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import lru_cache
from typing import cast

from hwsim.binding import Binding
from hwsim.card import Spread
from hwsim.cost import Cost
from hwsim.device import Device, Replay, estimate_all, timed
from hwsim.errors import CardError, InputError, Problem, dotted, nearest_name, shown
from hwsim.graph import Graph
from hwsim.kernel_family import kernel_family
from hwsim.kernel_ops import SPEC_OPS, Field, Sketch, Values
from hwsim.mapper import Kernel, Launch, Placement
from hwsim.value import made_in_bulk
from hwsim.work import Work, work_of

HOST = "host"


class Cache(StrEnum):
    """``cold``: caches empty, one launch; ``warm``: replayed back to back from a recorded graph."""

    COLD = "cold"
    WARM = "warm"


def spec_kernel(spec: Values, device: Device, launch: Launch = Launch.GRAPH) -> Kernel:
    """The kernel of one interchange object, its operands in the device's main memory.

    Raises `InputError` naming every wrong field.
    """
    values, problems = _checked(spec)
    if problems:
        raise InputError(*problems)
    return _kernel(values, device.card.main.name, launch)


def _kernel(values: Values, main_memory: str, launch: Launch) -> Kernel:
    name = str(values["op"])
    op = SPEC_OPS[name]
    sizes = cast("Mapping[str, int]", values)  # the fields that are no words have been checked to be integers
    binding, placement = _drawn(name, tuple([values[word] for word in op.words]), main_memory)
    bound = binding.without_shapes(sizes)
    main = bound.ops[-1]
    work = work_of(main, bound) if len(bound.ops) == 1 else _joined([work_of(part, bound) for part in bound.ops])
    return Kernel(name, main.kind, main.attrs, work, placement.flows(work), "", launch)


@lru_cache(maxsize=1024)
def _drawn(name: str, words: tuple[object, ...], main_memory: str) -> tuple[Binding, Placement]:
    """The graph of an op with these words, its sizes free, and where its tensors lie: drawn once, bound for every
    spec."""
    op = SPEC_OPS[name]
    sketch = Sketch({"op": name, **dict(zip(op.words, words, strict=True))})
    op.build(sketch)
    binding = Binding(Graph(name, sketch.tensors, tuple(sketch.ops), level="kernel"))
    return binding, Placement(main_memory, {tensor: {HOST: 1.0} for tensor in op.on_host})


def predict(specs: Sequence[object], device: Device, cache: Cache = Cache.COLD) -> list[dict[str, object]]:
    """The objects of ``specs`` with seconds, joules (static power included), bound, bytes of all operands and traffic.

    A calibrated card adds ``seconds_low`` and ``seconds_high``, which hold the time in 90 % of kernels of its family.
    Traffic is the bytes by memory, those that are read again included. Cold kernels are single launches, warm
    ones replayed from a graph. Raises `InputError` with all that is wrong, each under the index of its object.
    """
    warm = cache is Cache.WARM
    with made_in_bulk():
        objects, problems = _all_checked(specs)
        if problems:
            raise InputError(*problems)
        target = timed(device, Replay() if warm else None)
        return _all_predicted(objects, target, Launch.GRAPH if warm else Launch.EAGER)


def _all_predicted(objects: Sequence[tuple[Values, Values]], device: Device, launch: Launch) -> list[dict[str, object]]:
    """Values alike make kernels alike, which are made and estimated once; those of one op one after the other, which
    takes a sixth less time than in any order."""
    main_memory, static = device.card.main.name, device.card.static_power
    keys = [tuple(values.values()) for _, values in objects]
    distinct = dict(sorted(zip(keys, (values for _, values in objects), strict=True), key=_op))
    kernels = [_kernel(values, main_memory, launch) for values in distinct.values()]
    try:
        costs = estimate_all(device, kernels)
    except CardError:
        raise InputError(*_impossible(objects, device, main_memory, launch)) from None
    known = device.card.calibration
    state = str(Cache.WARM if launch is Launch.GRAPH else Cache.COLD)
    families = [kernel_family(kernel) for kernel in kernels]
    spreads = {family: known.spread(family, state) if known else None for family in set(families)}
    found = dict(zip(distinct, zip(kernels, costs, map(spreads.get, families), strict=True), strict=True))
    return [_predicted(spec, *found[key], static) for (spec, _), key in zip(objects, keys, strict=True)]


def _op(item: tuple[tuple[object, ...], Values]) -> str:
    """The op of checked values and their tuple, in which it comes first."""
    return str(item[0][0])


def _impossible(
    objects: Sequence[tuple[Values, Values]], device: Device, main_memory: str, launch: Launch
) -> Iterator[Problem]:
    """Which objects the card has no way to run, and why."""
    for index, (_, values) in enumerate(objects):
        try:
            device.estimate(_kernel(values, main_memory, launch))
        except CardError as error:
            yield Problem(str(error), path=dotted([index]))


def _predicted(spec: Values, kernel: Kernel, cost: Cost, spread: Spread | None, static: float) -> dict[str, object]:
    """The object with its results; a copy's own field ``bytes`` stays as it was given."""
    seconds = cost.seconds
    joules = cost.joules + static * seconds
    result = {**spec, "seconds": seconds, "joules": joules, "bound": cost.bound, "traffic": dict(cost.traffic)}
    if "bytes" not in SPEC_OPS[kernel.name].fields:
        result["bytes"] = kernel.nbytes
    if spread is not None:
        result["seconds_low"], result["seconds_high"] = spread.low * seconds, spread.high * seconds
    return result


def _all_checked(specs: Sequence[object]) -> tuple[list[tuple[Values, Values]], list[Problem]]:
    """Each object with its checked values, and what is wrong with any of them."""
    objects: list[tuple[Values, Values]] = []
    problems: list[Problem] = []
    for index, spec in enumerate(specs):
        if isinstance(spec, Mapping):
            values, wrong = _checked(spec)
            objects.append((spec, values))
            problems += [replace(one, path=f"{dotted([index])}.{one.path}") for one in wrong]
        else:
            expected = 'an object such as {"op": "matmul", ...}'
            problems.append(Problem(path=dotted([index]), got=shown(spec), expected=expected))
    return objects, problems


def _checked(spec: Values) -> tuple[dict[str, object], list[Problem]]:
    """The fields of a spec with defaults filled in, and what is wrong with them."""
    name = spec.get("op")
    if not isinstance(name, str) or name not in SPEC_OPS:
        nearest = nearest_name(name, SPEC_OPS) if isinstance(name, str) else None
        known = "" if nearest else ", ".join(sorted(SPEC_OPS))
        message = f"unknown op {shown(name)}" if "op" in spec else "missing"
        return {}, [Problem(message, path="op", expected=known, nearest=nearest)]
    values: dict[str, object] = {"op": name}
    problems = []
    for key, kind in SPEC_OPS[name].fields.items():
        values[key] = value = kind.read(spec.get(key, kind.default))
        if key not in spec or not kind.allows(value):
            problems += _wrong(spec, name, key, kind)
    return values, problems or _inconsistent(values)


def _wrong(spec: Values, name: str, key: str, kind: Field) -> list[Problem]:
    """What is wrong with a field that is missing or not allowed."""
    if key in spec:
        given, words = spec[key], tuple(choice for choice in kind.choices if isinstance(choice, str))
        nearest = _nearest(given, words) if isinstance(given, str) else None
        return [Problem(path=key, got=shown(given), expected=kind.expected, nearest=nearest)]
    fields = SPEC_OPS[name].fields
    misspelt = _nearest(key, tuple(other for other in spec if other not in fields and other != "op"))
    if kind.default is not None:
        return [Problem(f"unknown; is '{key}' meant?", path=misspelt)] if misspelt else []
    return [Problem(f"missing; is '{misspelt}' meant?" if misspelt else "missing", path=key)]


@lru_cache(maxsize=1024)
def _nearest(name: str, known: tuple[str, ...]) -> str | None:
    """Long lists are wrong in the same way over and over again."""
    return nearest_name(name, known)


def _inconsistent(values: Values) -> list[Problem]:
    """Problems between fields that are right by themselves."""
    for part, whole in (("kv_heads", "heads"), ("groups", "c"), ("groups", "o")):
        size, total = values.get(part), values.get(whole)
        if isinstance(size, int) and isinstance(total, int) and total % size:
            return [Problem(path=part, got=shown(size), expected=f"a divisor of {whole} = {total}")]
    if values["op"] == "conv2d":
        padding, k = values["padding"], values["k"]
        for side in ("h", "w"):
            length = values[side]
            if isinstance(length, int) and isinstance(padding, int) and isinstance(k, int) and length + 2 * padding < k:
                return [Problem(path="k", got=shown(k), expected=f"at most {side} + 2 x padding")]
    return []


def _joined(works: Sequence[Work]) -> Work:
    """The work of ops that run one after the other."""
    if len(works) == 1:
        return works[0]
    return Work(
        sum(work.matmul_flops for work in works),
        sum(work.vector_flops for work in works),
        sum(work.special_ops for work in works),
        tuple(access for work in works for access in work.accesses),
        works[-1].dtype,
    )
