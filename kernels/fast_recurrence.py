"""The recurrences as flash-linear-attention's Triton kernels (package fla-core), found when they are asked for.

`load_kernel` gives one of them under the name that the interchange has for it; `use_fast_kernels` makes them the CUDA
implementation of the op `hwsim::recurrence`, with which the models of the zoo are written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import version

from torch import Tensor

Kernel = Callable[..., tuple[Tensor, Tensor]]

PACKAGE = "fla"
DISTRIBUTION = "fla-core"
NAMES = {"ssd": "simple_gla"}
"""The name that the package has for a rule, where it is another one."""
GATES: dict[str, dict[str, str]] = {
    "gla": {"g": "k"},
    "ssd": {"g": "1"},
    "delta_rule": {"beta": "1"},
    "gated_delta_rule": {"g": "1", "beta": "1"},
    "kda": {"g": "k", "beta": "1"},
    "gdn2": {"g": "k", "b": "k", "w": "v"},
}
"""The gates of each rule, in order: the kernel's keyword and its elements per token and head, 1, d_k or d_v."""


@cache
def load_kernel(form: str, rule: str) -> Kernel:
    """The kernel of a `rule` in the form "chunk" or "recurrent"; ImportError where the package lacks it.

    Called as f(q, k, v, *gates, scale=, initial_state=, output_final_state=), it gives outputs and last state.
    """
    name = NAMES.get(rule, rule)
    function = {"chunk": f"chunk_{name}", "recurrent": f"fused_recurrent_{name}"}[form]
    room = import_module(f"{PACKAGE}.ops.{name}")
    kernel = getattr(room, function, None)
    if kernel is None:
        raise ImportError(f"{DISTRIBUTION} {version(DISTRIBUTION)} has no {function}")
    keywords = {"g": "gk"} if (form, rule) == ("recurrent", "gla") else {}
    gates = [keywords.get(gate, gate) for gate in GATES[rule]]

    def run(q: Tensor, k: Tensor, v: Tensor, *values: Tensor, **options: object) -> tuple[Tensor, Tensor]:
        out, last = kernel(q, k, v, **dict(zip(gates, values, strict=True)), **options)
        return out, last

    return run


def use_fast_kernels() -> None:
    """Run `hwsim::recurrence` on a CUDA device with the package's kernels."""
    from hwsim.kernels.recurrence import recurrence

    for rule in GATES:
        load_kernel("chunk", rule)
    recurrence.register_kernel("cuda")(fast_recurrence)


def fast_recurrence(
    q: Tensor, k: Tensor, v: Tensor, gates: Sequence[Tensor], state: Tensor | None, rule: str, chunk: int
) -> tuple[Tensor, Tensor]:
    """As `hwsim.kernels.recurrence.recurrence`; q and k are copied for every head of a group that shares them."""
    repeats = v.shape[2] // k.shape[2]
    queries, keys = (x.repeat_interleave(repeats, dim=2) if repeats > 1 else x.contiguous() for x in (q, k))
    kernel = load_kernel("chunk" if q.shape[1] > 1 and chunk > 0 else "recurrent", rule)
    scale = 1.0 if rule == "ssd" else None
    values, general = v.contiguous(), [gate.contiguous() for gate in gates]
    return kernel(queries, keys, values, *general, scale=scale, initial_state=state, output_final_state=True)
