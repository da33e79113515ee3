"""The decorator of the small values that every estimate makes by the hundred: tensors, accesses, flows, costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[T]) -> type[T]:
    """A dataclass with slots that nobody changes once it is made.

    The type checker holds it to be frozen. At run time nothing does: Python's own check takes five times as long as
    making the value, and half of an estimate would go by in it.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
