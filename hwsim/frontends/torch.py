"""Capture of torch modules: `trace` runs a module on the meta device, without weights or data, and records a Graph.

The module and its arguments are copied with meta tensors in place of theirs, so that neither is changed and nothing
is allocated. The record has the level at which eager PyTorch launches kernels on an accelerator.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

import hwsim.frontends.aten_matrix
import hwsim.frontends.aten_memory
import hwsim.frontends.aten_vector  # noqa: F401  (each registers its rules)
from hwsim.errors import GraphError
from hwsim.frontends.normalise import normalised, renamed
from hwsim.frontends.recorder import META, ModulePaths, Recorder
from hwsim.frontends.symbols import Sizes
from hwsim.frontends.tensors import TensorTable, tensors_in
from hwsim.frontends.whole import kept_whole
from hwsim.graph import Graph, Role


def trace(
    module: torch.nn.Module,
    args: tuple[object, ...] = (),
    kwargs: Mapping[str, object] | None = None,
    *,
    name: str | None = None,
    backward: bool = False,
) -> Graph:
    """The graph of ``module(*args, **kwargs)``; with ``backward``, of the gradients of its weights too.

    The gradient starts with ones at the floating-point results other than caches (at the loss alone, if one result
    is a scalar).
    Inputs that are written in place, and those named ``state``, ``past_key_values``, ``cache`` or ``*_cache``,
    are states of the graph.
    """
    copied, copied_args, copied_kwargs = _on_meta((module, args, dict(kwargs or {})))
    return _Trace(copied, Sizes()).run(copied_args, copied_kwargs, backward).graph(name or type(module).__name__)


def trace_symbolic(
    build_inputs: Callable[..., Mapping[str, object]],
    module: torch.nn.Module,
    symbols: Mapping[str, int],
    *,
    name: str | None = None,
    backward: bool = False,
) -> Graph:
    """The graph of ``module(**build_inputs(**sizes))`` with the sizes in ``symbols`` free.

    The values in ``symbols`` are hints: where the code asks whether one size is larger than another, they decide.
    A size that the code fixes to one value raises `GraphError`.
    """
    from hwsim.frontends.free_sizes import FreeSizes

    free = FreeSizes(symbols)
    copied = _on_meta(module, free.adopt)
    with free.mode, torch.device(META):
        kwargs = dict(build_inputs(**free.values))
        record = _Trace(copied, free.sizes).run((), kwargs, backward)
    free.check()
    return record.graph(name or type(module).__name__)


class _Trace:
    """One run of a module under the recorder, and what it leaves behind."""

    def __init__(self, module: torch.nn.Module, sizes: Sizes) -> None:
        self.module = module
        self.table = TensorTable(sizes)
        self.recorder = Recorder(self.table, ModulePaths(module))
        self.roles: dict[str, Role] = {}
        self.results: dict[str, torch.Tensor] = {}
        self.gradients: dict[str, torch.Tensor] = {}

    def run(self, args: tuple[Any, ...], kwargs: dict[str, Any], backward: bool) -> _Trace:
        """Record the module's run on meta arguments."""
        self._name_parameters()
        inputs = self._name_inputs(args, kwargs)
        with ExitStack() as modes:
            modes.enter_context(torch.set_grad_enabled(backward))
            modes.enter_context(kept_whole())
            modes.enter_context(self.recorder.paths.followed())
            modes.enter_context(self.recorder)
            result = self.module(*args, **kwargs)
            self.results = dict(tensors_in(result))
            if backward:
                self.gradients = self._backward(inputs)
        return self

    def graph(self, name: str) -> Graph:
        """The record as a graph."""
        owners = {self.table.owner(tensor) for tensor in (*self.results.values(), *self.gradients.values())} - {None}
        for owner in map(str, owners):
            if self.table.tensors[owner].role is Role.ACTIVATION:
                self.roles[owner] = Role.OUTPUT
        for owner in self.recorder.written:
            if self.table.tensors[owner].role in (Role.INPUT, Role.BUFFER):
                self.roles[owner] = Role.STATE
        self.table.set_roles(self.roles)
        graph = Graph(name, self.table.tensors, tuple(self.recorder.ops))
        return normalised(renamed(graph, self._gradient_names()) if self.gradients else graph)

    def _gradient_names(self) -> dict[str, str]:
        """New names of the tensors that hold gradients: the weight's with ``.grad``."""
        names: dict[str, str] = {}
        for of, gradient in self.gradients.items():
            owner = self.table.owner(gradient)
            if owner is not None and self.table.tensors[owner].role is Role.OUTPUT:
                names.setdefault(owner, f"{of}.grad")
        return names

    def _name_parameters(self) -> None:
        for name, parameter in self.module.named_parameters():
            self.table.name(parameter, name, Role.WEIGHT)
        for name, buffer in self.module.named_buffers():
            self.table.name(buffer, name, Role.BUFFER)

    def _name_inputs(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        named = list(tensors_in(_by_parameter(self.module, args, kwargs)))
        for name, tensor in named:
            self.table.name(tensor, name, Role.STATE if _names_state(name) else Role.INPUT)
        return [tensor for _, tensor in named]

    def _backward(self, inputs: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
        """The gradients of all weights (and of inputs that ask for theirs) by name, recorded."""
        wanted = [*self.module.parameters(), *inputs]
        wanted = [tensor for tensor in wanted if tensor.requires_grad]
        results = [tensor for name, tensor in self.results.items() if tensor.requires_grad and not _names_state(name)]
        if not results or not wanted:
            raise GraphError(
                "nothing to differentiate: no floating-point result depends on a weight that requires a gradient"
            )
        scalars = [tensor for tensor in results if tensor.dim() == 0]
        results = scalars[:1] or results
        seeds = [torch.ones_like(tensor) for tensor in results]
        gradients = torch.autograd.grad(results, wanted, seeds, allow_unused=True)
        named = zip(map(self.table.name, wanted), gradients, strict=True)
        return {name: gradient for name, gradient in named if gradient is not None}


class _CopiesToMeta(TorchFunctionMode):
    """While active, a deep copy of a tensor is a meta tensor of its layout; copies share storage as originals do."""

    def __init__(self, adopt: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._adopt = adopt
        self._storages: dict[int, torch.UntypedStorage] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__deepcopy__:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = self.twin(tensor)
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))

    def twin(self, tensor: torch.Tensor) -> torch.Tensor:
        """The meta tensor in place of ``tensor``."""
        if is_lazy(tensor):
            raise GraphError("a lazy parameter has no shape yet: run the module once before it is traced")
        source = tensor.untyped_storage()
        storage = self._storages.get(source._cdata)
        if storage is None:
            storage = torch.UntypedStorage(source.nbytes(), device=META)  # type: ignore[no-untyped-call]
            self._storages[source._cdata] = storage
        twin = torch.empty(0, dtype=tensor.dtype, device=META)
        twin.set_(storage, tensor.storage_offset(), tensor.shape, tensor.stride())
        if isinstance(tensor, torch.nn.Parameter):
            return self._adopt(torch.nn.Parameter(twin, tensor.requires_grad))
        return self._adopt(twin.requires_grad_(tensor.requires_grad))


def _as_it_is(tensor: torch.Tensor) -> torch.Tensor:
    return tensor


def _on_meta(value: Any, adopt: Callable[[torch.Tensor], torch.Tensor] = _as_it_is) -> Any:
    """A deep copy of ``value`` with meta tensors, each passed through ``adopt``, for all tensors inside."""
    with torch.no_grad():
        copies = _CopiesToMeta(adopt)
        memo: dict[int, Any] = {}
        for module in _modules_in(value):
            # Parameters copy themselves without asking the mode.
            for tensor in (*module.parameters(), *module.buffers()):
                memo[id(tensor)] = copies.twin(tensor)
        with copies:
            return copy.deepcopy(value, memo)


def _modules_in(value: Any) -> list[torch.nn.Module]:
    members = value if isinstance(value, tuple) else (value,)
    return [member for member in members if isinstance(member, torch.nn.Module)]


def _by_parameter(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments by the names that the module's forward gives them."""
    try:
        bound = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        return {**{f"arg{index}": value for index, value in enumerate(args)}, **kwargs}
    return {**{name: value for name, value in bound.items() if name != "kwargs"}, **bound.get("kwargs", {})}


def _names_state(name: str) -> bool:
    """Whether a dotted name has a part that caches and states go by."""
    return any(part in ("state", "past_key_values", "cache") or part.endswith("_cache") for part in name.split("."))
