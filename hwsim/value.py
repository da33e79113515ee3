"""The small values that every estimate makes by the hundred, tensors, accesses, flows and costs: made fast."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
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


@contextmanager
def made_in_bulk() -> Iterator[None]:
    """Values by the hundred thousand: Python does not search them for cycles, of which they have none.

    The search takes longer the more there are, up to as long again as making them.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
