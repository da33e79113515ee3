"""The recurrence op: against published references, chunk form against recurrent form, state handed on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hwsim.kernels.recurrence import RULES, recurrence

ORACLE = Path(__file__).parents[1] / "oracle"
GATES = {"linear": [], "gla": ["gk"], "gated_delta_rule": ["g", "beta"], "kda": ["g", "beta"]}
FILES = {"linear": "linear_attn"}


def load(name: str) -> dict[str, Tensor]:
    """The float arrays of an oracle file."""
    arrays = np.load(ORACLE / f"{name}.npz", allow_pickle=False)
    return {key: torch.from_numpy(arrays[key]) for key in arrays.files if key != "meta"}


def close(ours: Tensor, theirs: Tensor, tolerance: float = 1e-5) -> bool:
    """Whether two arrays agree relative to the largest entry."""
    return bool((ours - theirs).abs().max() <= tolerance * theirs.abs().max())


def random_inputs(rule: str, tokens: int = 29, heads: int = 4, groups: int = 2) -> tuple[list[Tensor], list[Tensor]]:
    """q, k, v and the gates of `rule`, seeded, as a model would give them."""
    torch.manual_seed(len(rule))
    keys, values = 8, 12
    q, k = (torch.nn.functional.normalize(torch.randn(2, tokens, groups, keys), dim=-1) for _ in range(2))
    v = torch.randn(2, tokens, heads, values)
    wide = {"gla": [keys], "kda": [keys, 0], "gdn2": [keys, keys, values]}
    sizes = wide.get(rule, [0] * len(RULES[rule]))
    gates = []
    for size, roles in zip(sizes, RULES[rule], strict=True):
        raw = torch.randn(2, tokens, heads, *([size] if size else []))
        gates.append(torch.nn.functional.logsigmoid(raw) if roles == "g" else raw.sigmoid())
    return [q, k, v], gates


@pytest.mark.parametrize("chunk", [0, 5, 16, 64])
@pytest.mark.parametrize("rule", list(GATES))
def test_outputs_and_gradients_equal_the_published_reference(rule: str, chunk: int) -> None:
    data = load(FILES.get(rule, rule))
    names = ["q", "k", "v", *GATES[rule], *(["h0"] if "h0" in data else [])]
    leaves = {name: data[name].clone().requires_grad_() for name in names}
    gates = [leaves[name] for name in GATES[rule]]
    out, state = recurrence(leaves["q"], leaves["k"], leaves["v"], gates, leaves.get("h0"), rule, chunk)
    assert close(out, data["o"]) and close(state, data["S"])
    if "do" in data:
        ((out * data["do"]).sum() + (state * data["dS"]).sum()).backward()
        for name in names:
            gradient = leaves[name].grad
            assert gradient is not None and close(gradient, data[f"d{name}"]), name


@pytest.mark.parametrize("chunk", [0, 7, 32])
def test_ssd_equals_the_published_reference(chunk: int) -> None:
    data = load("mamba2_ssd")
    x, dt, b, c = (data[name].clone().requires_grad_() for name in ("x", "dt", "B", "C"))
    y, state = recurrence(c, b, x * dt[..., None], [dt * data["A"]], None, "ssd", chunk)
    assert close(y, data["y"]) and close(state.mT, data["final_state"])
    ((y * data["dy"]).sum() + (state.mT * data["dfinal"]).sum()).backward()
    for name, leaf in (("x", x), ("dt", dt), ("B", b), ("C", c)):
        assert leaf.grad is not None and close(leaf.grad, data[f"d{name}"]), name


@pytest.mark.parametrize("chunk", [1, 4, 16, 64])
@pytest.mark.parametrize("rule", list(RULES))
def test_chunk_form_equals_recurrent_form(rule: str, chunk: int) -> None:
    qkv, gates = random_inputs(rule)
    expected, last = recurrence(*qkv, gates, None, rule, 0)
    out, state = recurrence(*qkv, gates, None, rule, chunk)
    assert close(out, expected) and close(state, last)


@pytest.mark.parametrize("rule", list(RULES))
def test_a_sequence_in_two_calls_equals_one_call(rule: str) -> None:
    qkv, gates = random_inputs(rule)
    expected, last = recurrence(*qkv, gates, None, rule, 8)
    cut, state, parts = 11, None, []
    for part in (slice(0, cut), slice(cut, None)):
        out, state = recurrence(*(x[:, part] for x in qkv), [x[:, part] for x in gates], state, rule, 8)
        parts.append(out)
    assert state is not None and close(torch.cat(parts, 1), expected) and close(state, last)


@pytest.mark.parametrize("rule", list(RULES))
def test_gradient_equals_finite_differences(rule: str) -> None:
    qkv, gates = random_inputs(rule, tokens=5)
    state = torch.randn(2, 4, 8, 12)
    leaves = [x.requires_grad_() for x in (*qkv, *gates, state)]
    arguments = (*leaves[:3], leaves[3:-1], leaves[-1], rule, 4)
    direction = [torch.randn_like(x) for x in leaves]

    def loss(step: float) -> Tensor:
        moved = [x.detach() + step * d for x, d in zip(leaves, direction, strict=True)]
        out, last = recurrence(*moved[:3], moved[3:-1], moved[-1], rule, 4)
        return out.square().sum() + last.square().sum()

    out, last = recurrence(*arguments)
    gradients = torch.autograd.grad(out.square().sum() + last.square().sum(), leaves)
    products = [float((g * d).sum()) for g, d in zip(gradients, direction, strict=True)]
    slope = float(loss(1e-2) - loss(-1e-2)) / 2e-2
    assert sum(products) == pytest.approx(slope, abs=2e-3 * sum(map(abs, products)))


@pytest.mark.parametrize("rule", ["linear", "gdn2"])
def test_op_is_well_formed(rule: str) -> None:
    qkv, gates = random_inputs(rule, tokens=5)
    leaves = [x.requires_grad_() for x in (*qkv, *gates, torch.randn(2, 4, 8, 12))]
    torch.library.opcheck(recurrence, (*leaves[:3], leaves[3:-1], leaves[-1], rule, 4))


def test_strong_decay_over_a_long_chunk_stays_finite() -> None:
    qkv, gates = random_inputs("gdn2", tokens=64)
    gates[0] = gates[0] - 20.0
    expected, _ = recurrence(*qkv, gates, None, "gdn2", 0)
    out, _ = recurrence(*qkv, gates, None, "gdn2", 64)
    assert close(out, expected)


def test_unknown_rule_is_named() -> None:
    qkv, gates = random_inputs("gla")
    with pytest.raises(ValueError, match="expected one of linear, gla, ssd"):
        recurrence(*qkv, gates, None, "glaa", 0)
