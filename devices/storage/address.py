"""The state of a drive as compiled code gets it: the bare address of an array of whole numbers.

numba passes an array as seven values, counts who refers to it, and tests of each index whether it counts from the end,
while a simulated page takes some hundred calls and a thousand accesses. Indices are not tested here: those of the
simulator come from its own tables.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
from numba import types
from numba.core.typing.templates import signature
from numba.extending import models, register_model, type_callable, typeof_impl, unbox

F = TypeVar("F", bound=Callable[..., object])
_unboxes = cast("Callable[..., Callable[[F], F]]", unbox)  # its stub has no types
_signature = cast("Callable[..., object]", signature)


class Words(np.ndarray[tuple[int], np.dtype[np.int64]]):
    """An array that compiled code gets as its address; for Python it is an array as any other."""

    __numba_array_subtype_dispatch__ = True


class _Address(types.CPointer):
    """numba's type of it: its pointers, but indices may be members of enumerations too."""


_ADDRESS = cast("Callable[[types.Type], _Address]", _Address)(types.int64)
register_model(_Address)(models.PointerModel)


@typeof_impl.register(Words)
def _typeof(value: Words, context: object) -> types.Type:
    return _ADDRESS


@_unboxes(_Address)
def _taken(kind: types.Type, value: Any, c: Any) -> Any:
    """The address, from Python's number of it."""
    ctypes = c.pyapi.object_getattr_string(value, "ctypes")
    data = c.pyapi.object_getattr_string(ctypes, "data")
    number = c.unbox(types.uintp, data)
    c.pyapi.decref(data)
    c.pyapi.decref(ctypes)
    number.value = c.builder.inttoptr(number.value, c.context.get_value_type(kind))
    return number


@type_callable(operator.getitem)
def _item(context: Any) -> Any:
    def kinds(at: types.Type, place: types.Type) -> object:
        member = isinstance(at, _Address) and isinstance(place, types.IntEnumMember)
        return _signature(types.int64, at, types.intp) if member else None

    return kinds


@type_callable(operator.setitem)
def _change(context: Any) -> Any:
    def kinds(at: types.Type, place: types.Type, value: types.Type) -> object:
        member = isinstance(at, _Address) and isinstance(place, types.IntEnumMember)
        return _signature(types.none, at, types.intp, types.int64) if member else None

    return kinds
