"""What a kernel or a transfer takes on a device: time, dynamic energy, bytes per memory, the binding resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from hwsim.value import value


@value
class Cost:
    """Costs add: ``a + b`` one after the other, ``a | b`` at the same time, ``n * a`` repeated.

    ``joules`` is dynamic energy only; static power is charged once over the whole run. ``busy`` holds, per resource,
    the seconds it works; ``bound`` names the resource that sets ``seconds``.
    """

    seconds: float = 0.0
    joules: float = 0.0
    traffic: Mapping[str, float] = field(default_factory=dict)
    busy: Mapping[str, float] = field(default_factory=dict)
    bound: str = ""

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.joules + other.joules,
            _sum(self.traffic, other.traffic),
            _sum(self.busy, other.busy),
            self._longer(other).bound,
        )

    def __or__(self, other: Cost) -> Cost:
        longer = self._longer(other)
        return Cost(
            longer.seconds,
            self.joules + other.joules,
            _sum(self.traffic, other.traffic),
            _sum(self.busy, other.busy),
            longer.bound,
        )

    def __rmul__(self, count: float) -> Cost:
        return Cost(
            count * self.seconds,
            count * self.joules,
            {name: count * value for name, value in self.traffic.items()},
            {name: count * value for name, value in self.busy.items()},
            self.bound,
        )

    def _longer(self, other: Cost) -> Cost:
        return self if self.seconds >= other.seconds else other


def _sum(left: Mapping[str, float], right: Mapping[str, float]) -> dict[str, float]:
    return {name: left.get(name, 0.0) + right.get(name, 0.0) for name in {**left, **right}}
