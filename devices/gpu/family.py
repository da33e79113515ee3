"""What a kernel family is to a GPU: the sizes it reads off a kernel, and the physics that times them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hwsim.devices.gpu.chip import Chip
from hwsim.devices.gpu.loads import Columns
from hwsim.devices.gpu.timing import Array, Load, Timing
from hwsim.mapper import Kernel


@dataclass(frozen=True, slots=True)
class Family:
    """``shape`` gives a NamedTuple of floats for one kernel; ``timing`` takes the same tuple with arrays in it, and
    ``apart`` tells the share of a kernel's bytes that one unit alone reads, where there are such."""

    shape: Callable[[Kernel], Any]
    timing: Callable[[Any, Load, Chip], Timing]
    apart: Callable[[Any, Columns, Chip], Array] | None = None

    @property
    def formulas(self) -> object:
        """What families that are calculated together have in common."""
        return self.timing, self.apart
