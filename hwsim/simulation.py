"""Workload x device x mapper -> Result: the one path that everything takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hwsim.capture import GraphModel, Model, find_model
from hwsim.device import Device, load_device
from hwsim.engine import run
from hwsim.errors import InputError
from hwsim.fold import fold
from hwsim.graph import Graph, Kind, Op, Role, Tensor
from hwsim.mapper import Mapper, Parted, Policy
from hwsim.mapper_options import as_text, label, read_options
from hwsim.precision import EVERYWHERE, in_precision, native_format
from hwsim.registry import load_plugin
from hwsim.result import PhaseResult, Result
from hwsim.system import System
from hwsim.systemfile import is_system, load_system
from hwsim.workload import Workload, integrate

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

MAPPERS = "hwsim.mappers"


@dataclass(frozen=True, slots=True)
class Simulation:
    """One case: a model's workload on a device through a mapper."""

    model: Model
    device: Device
    mapper: Mapper
    workload: Workload
    policy: Policy = field(default_factory=Policy)
    spans: bool = True  # whether results keep every execution, as a timeline needs; sweeps do not

    def run(self) -> Result:
        """Simulate every phase of the workload; raises `DoesNotFitError` and the errors of capture and device."""
        if self.workload.phase not in self.model.phases:
            phases = ", ".join(self.model.phases)
            raise InputError(f"model '{self.model.name}' has no phase '{self.workload.phase}'; it has: {phases}")
        parts: tuple[PhaseResult, ...]
        if self.workload.phase == "train" and self.workload.dtype not in EVERYWHERE:
            raise InputError(f"training in {self.workload.dtype} is not modelled; formats: {', '.join(EVERYWHERE)}")
        if self.workload.phase == "generate":
            parts, error = self._generate()
        else:
            parts, error = (self._phase(self.workload.phase, self.workload.prompt),), 0.0
        options: DataclassInstance | None = getattr(self.mapper, "options", None)
        named = label(self.mapper.name, options)
        system = self.device if isinstance(self.device, System) else None
        return Result(self.model.name, self.device.card, named, self.workload, parts, error, as_text(options), system)

    def _generate(self) -> tuple[tuple[PhaseResult, ...], float]:
        """Prefill, then decode integrated over the growing context."""
        load = self.workload
        steps: dict[int, PhaseResult] = {}

        def step(context: int) -> float:
            steps[context] = self._phase("decode", context)
            return steps[context].seconds

        rule = integrate(step, load.prompt, load.generate)
        decode = tuple(
            replace(steps[point], weight=weight) for point, weight in zip(rule.points, rule.weights, strict=True)
        )
        return (self._phase("prefill", load.prompt), *decode), rule.error

    @property
    def _batch(self) -> int:
        """Sequences of the graph that the mapper is given."""
        parts = self.mapper.parts if isinstance(self.mapper, Parted) else 1
        if self.workload.batch % parts:
            raise InputError(f"a batch of {self.workload.batch} cannot be divided into {parts} equal parts")
        return self.workload.batch // parts

    def _phase(self, phase: str, prompt: int) -> PhaseResult:
        captured = self.model.capture(phase)
        if self.workload.batch != 1 and "batch" not in captured.symbols:
            raise InputError(f"model '{self.model.name}' was captured with fixed sizes: its batch cannot be set")
        graph = _prepared(captured, self.workload.dtype, phase == "train")
        graph = graph.bind(batch=self._batch, prompt=prompt)
        schedule = self.mapper.schedule(graph, self.device, self.policy)
        return PhaseResult(
            phase, prompt, schedule, run(schedule, self.device, self.spans), graph.unmodelled, graph.level
        )


def estimate(
    model: str | Graph,
    device: str | Path | Mapping[str, object] | Device,
    *,
    phase: str | None = None,
    batch: int = 1,
    prompt: int = 2048,
    generate: int = 128,
    dtype: str | None = None,
    mapper: str = "auto",
    mapper_options: Mapping[str, object] | None = None,
    spill: bool = False,
    overrides: Mapping[str, Any] | None = None,
    dims: Mapping[str, int] | None = None,
) -> Result:
    """Time, energy and memory of ``model`` on ``device``.

    ``model``: a zoo name, a path to ``.onnx`` (with ``dims``), ``package.module:factory``, or a Graph. ``phase``: one
    of prefill, decode, generate, train, forward (default: decode for language models of the zoo, else forward).
    ``dtype``: see `hwsim.precision` (default: as the graph is, bf16 for everything else).
    ``mapper_options``: those that ``hwsim show MAPPER`` lists, quantities with their unit.
    ``overrides`` change a zoo model's config. ``spill`` lets what does not fit overflow to the host.
    Raises subclasses of `hwsim.errors.HwsimError`.
    """
    found = _found(model, overrides, dims)
    if dtype is None:
        dtype = native_format(model) if isinstance(model, Graph) else "bf16"
    if phase is None:
        phase = "decode" if "decode" in found.phases else "forward"
    made = _made(device) if isinstance(device, str | Path | Mapping) else device
    workload = Workload(phase, batch, prompt, generate, dtype)
    return Simulation(found, made, load_mapper(mapper, mapper_options), workload, Policy(spill)).run()


def _found(given: str | Graph, overrides: Mapping[str, Any] | None, dims: Mapping[str, int] | None) -> Model:
    """The model of a name, or of a graph."""
    if isinstance(given, str):
        return find_model(given, overrides, dims)
    if not isinstance(given, Graph):
        raise InputError(
            f"a model is a name or a Graph; got {type(given).__name__}: make one with hwsim.trace(module, args)"
        )
    if overrides or dims:
        raise InputError("a Graph is as it is: overrides and dims belong to names")
    return GraphModel(given)


def _made(given: str | Path | Mapping[str, object]) -> Device:
    """The device of a card, or the system of a file or of named devices."""
    if isinstance(given, Mapping) or is_system(given):
        return load_system(given)
    return load_device(given)


@lru_cache(maxsize=64)
def _prepared(captured: Graph, dtype: str, train: bool) -> Graph:
    """The graph before its sizes are known; cases share it, and with it what is known of its structure."""
    graph = in_precision(captured, dtype)
    return with_optimizer(graph) if train else graph


@dataclass(frozen=True, slots=True)
class MapperChoice:
    """A mapper by name with its options (None of one that has none): what a case keeps of it."""

    name: str
    options: DataclassInstance | None = None

    @property
    def label(self) -> str:
        """The name that results carry."""
        return label(self.name, self.options)

    @property
    def settings(self) -> str:
        """All options as JSON, in SI units."""
        return as_text(self.options)

    def make(self) -> Mapper:
        """The mapper itself."""
        made = mapper_class(self.name)
        return cast("Mapper", made() if self.options is None else made(self.options))


def choose_mapper(name: str, options: Mapping[str, object] | None = None) -> MapperChoice:
    """The mapper called ``name`` with ``options`` as users write them; raises `InputError`."""
    return MapperChoice(name, read_options(name, mapper_class(name), options or {}))


def load_mapper(name: str, options: Mapping[str, object] | None = None) -> Mapper:
    """The mapper called ``name`` with ``options``; raises `InputError`."""
    return choose_mapper(name, options).make()


@lru_cache(maxsize=64)
def mapper_class(name: str) -> type:
    """The class of the mapper called ``name``."""
    return cast("type", load_plugin(MAPPERS, name))


def with_optimizer(graph: Graph) -> Graph:
    """The training graph with an AdamW step: fp32 master weights and two moments per parameter (arXiv 1711.05101).

    One op reads the gradients and reads and writes the states and the weights, as a fused multi-tensor kernel does.
    """
    graph = fold(graph)
    count = graph.parameters
    moments = Tensor("adamw.moments", (3, count), "fp32", Role.STATE)
    # Weights and gradients are in the graph already, tensor by tensor: these two stand for all of them at once and
    # borrow the moments' storage so that they are not counted twice.
    weights = Tensor("adamw.weights", (count,), _weight_format(graph), Role.WEIGHT, moments.name)
    gradients = Tensor("adamw.gradients", (count,), weights.dtype, Role.ACTIVATION, moments.name)
    op = Op(
        Kind.ELEMENTWISE,
        (gradients.name, moments.name),
        (moments.name, weights.name),
        {"function": "adamw", "numel": count},
        "optimizer.adamw",
        "optimizer",
    )
    tensors = {**graph.tensors, moments.name: moments, weights.name: weights, gradients.name: gradients}
    return replace(graph, tensors=tensors, ops=(*graph.ops, op))


def _weight_format(graph: Graph) -> str:
    formats = [tensor.dtype for tensor in graph.of_role(Role.WEIGHT)]
    return max(set(formats), key=formats.count) if formats else "fp32"
