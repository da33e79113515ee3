"""Names for the tensors of a trace: one per storage and layout, so that views are known as views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import torch

from hwsim.errors import GraphError
from hwsim.frontends.symbols import Sizes
from hwsim.graph import Role, Tensor
from hwsim.sizes import Size, product

DTYPE_NAMES = {
    torch.float64: "fp64", torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16",
    torch.float8_e4m3fn: "fp8", torch.float8_e4m3fnuz: "fp8", torch.float8_e5m2: "fp8_e5m2",
    torch.float8_e5m2fnuz: "fp8_e5m2", torch.float8_e8m0fnu: "uint8", torch.float4_e2m1fn_x2: "fp8",
    torch.complex64: "complex64", torch.complex128: "complex128", torch.bool: "bool",
    torch.int64: "int64", torch.int32: "int32", torch.int16: "int16", torch.int8: "int8",
    torch.uint64: "uint64", torch.uint32: "uint32", torch.uint16: "uint16", torch.uint8: "uint8",
}  # fmt: skip

Key: TypeAlias = tuple[Any, ...]


def dtype_name(dtype: torch.dtype) -> str:
    """Our name of a torch dtype."""
    if dtype not in DTYPE_NAMES:
        raise GraphError(f"{dtype} is no format that hwsim knows; known: {', '.join(map(str, DTYPE_NAMES))}")
    return DTYPE_NAMES[dtype]


class TensorTable:
    """Graph tensors by (storage, offset, shape, strides, dtype) of the traced ones.

    The storages are kept, so that their addresses stay theirs; on the meta device they hold no memory.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[Key, str] = {}
        self._owners: dict[int, str] = {}
        self._storages: list[torch.UntypedStorage] = []

    def knows(self, tensor: torch.Tensor) -> bool:
        """Whether the storage behind ``tensor`` has been seen."""
        return tensor.untyped_storage()._cdata in self._owners

    def owner(self, tensor: torch.Tensor) -> str | None:
        """The name of the tensor that owns the storage of ``tensor``, if that was seen."""
        return self._owners.get(tensor.untyped_storage()._cdata)

    def find(self, tensor: torch.Tensor) -> str | None:
        """The name of ``tensor``, if it was seen in this layout."""
        return self._names.get(self._key(tensor))

    def name(self, tensor: torch.Tensor, stem: str = "constant", role: Role = Role.BUFFER) -> str:
        """The name of ``tensor``; an unknown layout of a known storage becomes a view, an unknown storage an owner
        of ``role``."""
        key = self._key(tensor)
        known = self._names.get(key)
        if known is not None:
            return known
        base = self._owners.get(key[0])
        name = self._free_name(stem)
        shape = tuple(map(self.sizes, tensor.shape))
        role = role if base is None else self.tensors[base].role
        self.tensors[name] = Tensor(name, shape, dtype_name(tensor.dtype), role, base, self._distinct(tensor))
        self._names[key] = name
        if base is None:
            self._owners[key[0]] = name
            self._storages.append(tensor.untyped_storage())
        return name

    def alias(self, tensor: torch.Tensor, name: str) -> None:
        """Let ``tensor`` be another appearance of the one called ``name``."""
        key = self._key(tensor)
        self._names[key] = name
        if key[0] not in self._owners:
            self._owners[key[0]] = self.tensors[name].base or name
            self._storages.append(tensor.untyped_storage())

    def set_roles(self, roles: Mapping[str, Role]) -> None:
        """Give the named storages other roles; views follow their base."""
        for name, tensor in self.tensors.items():
            role = roles.get(tensor.base or name)
            if role is not None:
                self.tensors[name] = replace(tensor, role=role)

    def _key(self, tensor: torch.Tensor) -> Key:
        storage = tensor.untyped_storage()._cdata
        sizes, strides, offset = tensor.shape, tensor.stride(), tensor.storage_offset()
        if self.sizes.symbolic:
            return storage, self.sizes.plain(offset), self.sizes.plain(sizes), self.sizes.plain(strides), tensor.dtype
        return storage, offset, sizes, strides, tensor.dtype

    def _free_name(self, stem: str) -> str:
        if stem not in self.tensors:
            return stem
        return f"{stem}_{len(self.tensors)}"

    def _distinct(self, tensor: torch.Tensor) -> Size | None:
        """The number of different elements where broadcasting or overlapping windows repeat some."""
        strides = tensor.stride()
        repeated = [stride == 0 and size != 1 for size, stride in zip(tensor.shape, strides, strict=True)]
        if any(repeated):
            return product(self.sizes(size) for size, again in zip(tensor.shape, repeated, strict=True) if not again)
        if self.sizes.symbolic or tensor.dtype.itemsize * tensor.numel() <= tensor.untyped_storage().nbytes():
            return None
        return tensor.untyped_storage().nbytes() // tensor.dtype.itemsize


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors inside ``value`` with dotted names: containers and the attributes of plain objects, each once."""
    yield from _walk(value, name, set())


def _walk(value: Any, name: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
        return
    if value is None or isinstance(value, str | bytes | int | float | type | torch.nn.Module) or id(value) in seen:
        return
    seen.add(id(value))
    for key, member in _members(value):
        yield from _walk(member, f"{name}.{key}" if name else str(key), seen)


def _members(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, list | tuple | set | frozenset):
        return zip(getattr(value, "_fields", range(len(value))), value, strict=True)
    attributes = getattr(value, "__dict__", None)
    return attributes.items() if isinstance(attributes, dict) and not callable(value) else ()
