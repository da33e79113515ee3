"""Recording of a module's run: every dispatched op is lowered at once to an op of the graph."""

from __future__ import annotations

import sys
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch._dispatch.python import enable_python_dispatcher
from torch.nn.modules import module as module_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hwsim.errors import UnsupportedOpError
from hwsim.frontends.aten import Call, OpInfo, aten_ops, describe
from hwsim.frontends.tensors import TensorTable
from hwsim.frontends.whole import STAND_INS, WHOLE
from hwsim.graph import Attribute, Kind, Op, Role
from hwsim.sizes import Size

META = torch.device("meta")

# Ops whose result depends on the values of a tensor.
_DATA_DEPENDENT = aten_ops(
    "_local_scalar_dense nonzero masked_select _unique2 unique_dim unique_consecutive equal is_nonzero bincount "
    "repeat_interleave nonzero_static"
)
# Ops whose meta kernel in C++ refuses symbolic sizes: the Python dispatcher finds their Python form.
_CONCRETE_META = aten_ops("constant_pad_nd linalg_solve_triangular")
# Questions and checks that the host answers.
_HOST_ONLY = aten_ops(
    "_assert_async _assert_scalar _assert_tensor_metadata _functional_sym_constrain_range sym_size sym_stride "
    "sym_numel sym_storage_offset is_contiguous is_pinned"
)
_LITERAL_ELEMENTS = 4096  # tensors written as literals keep their values up to this size


class ModulePaths:
    """The qualified name of the module that runs, in forward and in backward.

    In backward the autograd node that runs was numbered when its forward op ran: the path of that moment is its path.
    """

    def __init__(self, root: torch.nn.Module) -> None:
        self._names = {id(module): name for name, module in root.named_modules()}
        self._stack = [""]
        self._numbers: list[int] = []
        self._paths: list[str] = []

    @property
    def current(self) -> str:
        """The path to charge the running op to."""
        node = torch._C._current_autograd_node()
        if node is not None:
            place = bisect_right(self._numbers, node._sequence_nr())
            return self._paths[place] if place < len(self._paths) else ""
        path = self._stack[-1]
        number = torch.autograd._get_sequence_nr()
        if not self._numbers or self._numbers[-1] < number:
            self._numbers.append(number)
            self._paths.append(path)
        return path

    @contextmanager
    def followed(self) -> Iterator[None]:
        """While active, module calls are followed."""
        before = module_hooks.register_module_forward_pre_hook(self._enter)
        after = module_hooks.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: torch.nn.Module, args: Any) -> None:
        self._stack.append(self._names.get(id(module), self._stack[-1]))

    def _leave(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        if len(self._stack) > 1:
            self._stack.pop()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every op on the meta device and records it.

    Real tensors that the code brings along are replaced by meta ones; only small literals keep their values, for
    code that reads them.
    """

    def __init__(self, table: TensorTable, paths: ModulePaths) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.table = table
        self.ops: list[Op] = []
        self.written: set[str] = set()
        self.paths = paths
        self._infos: dict[Any, OpInfo] = {}
        # By identity; the tensors are kept, so that their ids stay theirs.
        self._literals: dict[int, torch.Tensor] = {}
        self._twins: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        info = self._infos.get(func)
        if info is None:
            info = self._infos[func] = describe(func)
        if info.name == "prim::device":
            return META
        if info.name in _HOST_ONLY:
            return func(*args, **kwargs)
        if info.composite:
            with self:
                whole = WHOLE.get(info.name)
                return func.decompose(*args, **kwargs) if whole is None else whole(*args, **kwargs)
        if info.name == "aten::lift_fresh":  # a tensor that the code made of literals
            self._keep_literals(args[0])
            return args[0]
        args, kwargs, literal = self._on_meta(info, args, kwargs)
        try:
            with enable_python_dispatcher() if info.name in _CONCRETE_META else nullcontext():
                out = STAND_INS.get(info.name, func)(*args, **kwargs)
        except Exception as error:
            if self._wants_values(info, args):
                raise UnsupportedOpError(
                    f"{info.name} in module '{self.paths.current}' at {_user_line()} needs the values of a tensor, "
                    f"which a trace has not: use a form with fixed shapes (such as a grouped matmul)"
                ) from error
            raise
        if literal:
            self._keep_literals(out)
        self._record(info, args, kwargs, out)
        return out

    def size(self, value: int | torch.SymInt) -> Size:
        """A size of the graph."""
        return self.table.sizes(value)

    def emit(
        self,
        kind: Kind,
        inputs: Iterable[torch.Tensor],
        outputs: Iterable[torch.Tensor],
        source: str,
        attrs: dict[str, Attribute],
    ) -> None:
        """Append an op over the named tensors."""
        read = tuple(self.table.name(tensor) for tensor in inputs)
        made = tuple(self.table.name(tensor, source, Role.ACTIVATION) for tensor in outputs)
        self.ops.append(Op(kind, read, made, attrs, source, self.paths.current))

    def alias(self, tensor: torch.Tensor, of: torch.Tensor) -> None:
        """Let ``tensor`` stand for ``of``: nothing runs between them."""
        self.table.alias(tensor, self.table.name(of))

    def _record(self, info: OpInfo, args: Any, kwargs: Any, out: Any) -> None:
        call = Call(info, args, kwargs, out, self)
        if info.written:
            self.written.update(self.table.tensors[self.table.name(t)].base or self.table.name(t) for t in call.outputs)
        elif self._is_view(call):
            return
        if not call.outputs:
            return
        if info.rule is None:
            call.emit(Kind.UNKNOWN)
        else:
            info.rule(call)

    def _is_view(self, call: Call) -> bool:
        """Results in a known storage are views: free, and nothing at all where the layout is known too."""
        outputs = call.outputs
        if not outputs or not all(map(self.table.knows, outputs)):
            return False
        fresh = [tensor for tensor in outputs if self.table.find(tensor) is None]
        if fresh:
            self.emit(Kind.VIEW, call.inputs[:1], fresh, call.info.source, {})
        return True

    def _on_meta(self, info: OpInfo, args: Any, kwargs: Any) -> tuple[Any, Any, bool]:
        """The arguments with real tensors and devices replaced; whether all tensors are literals."""
        tensors = list(_tensors((*args, *kwargs.values())))
        real = [t for t in tensors if t.device.type != "meta"]
        literal = bool(real) and len(real) == len(tensors) and all(id(t) in self._literals for t in real)
        if real and not literal:
            args, kwargs = tree_map_only(torch.Tensor, self._twin, (args, kwargs))
        if not literal and "device" in info.positions and (not tensors or kwargs.get("device") is not None):
            kwargs = {**kwargs, "device": META}
        if kwargs.get("pin_memory") or kwargs.get("generator") is not None:
            kwargs = {name: value for name, value in kwargs.items() if name not in ("pin_memory", "generator")}
        return args, kwargs, literal

    def _twin(self, tensor: torch.Tensor) -> torch.Tensor:
        if tensor.device.type == "meta":
            return tensor
        known = self._twins.get(id(tensor))
        if known is None:
            twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
            self.table.alias(twin, self.table.name(tensor))
            known = self._twins[id(tensor)] = (twin, tensor)
        return known[0]

    def _keep_literals(self, out: Any) -> None:
        for tensor in _tensors((out,)):
            if tensor.numel() <= _LITERAL_ELEMENTS:
                self._literals[id(tensor)] = tensor

    def _wants_values(self, info: OpInfo, args: Any) -> bool:
        """Whether the op's result depends on more than shapes: named ones, and indexing by a mask."""
        masked = info.name == "aten::index" and any(t.dtype in (torch.bool, torch.uint8) for t in _tensors(args[1]))
        return masked or info.name in _DATA_DEPENDENT


def _tensors(values: Iterable[Any]) -> Iterator[torch.Tensor]:
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _user_line() -> str:
    """The innermost line outside of torch and of this package."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if not name.startswith(("torch.", "hwsim.frontends", "contextlib")) and name != "torch":
            return f"{frame.f_code.co_filename}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "an unknown place"
