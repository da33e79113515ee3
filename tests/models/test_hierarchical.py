import pytest
import torch

from hwsim.frontends.torch import trace_symbolic
from hwsim.graph import Graph, Kind, Role
from hwsim.models.hierarchical import HierarchicalConfig, HierarchicalMemories, widened
from hwsim.models.layers import SwiGLU

SMALL = HierarchicalConfig(2, 32, 4, 8, 48, units=(6, 4, 0), branching=3, vocab=61)
PATH = torch.tensor([[1, 5], [2, 8]])


def traced(phase: str) -> Graph:
    model = HierarchicalMemories(SMALL)
    hints = {"batch": 3, "prompt": 1531}
    graph = trace_symbolic(lambda batch, prompt: model.example_inputs(phase, batch, prompt), model, hints)
    return graph.bind(batch=2, prompt=100)


@torch.no_grad()
def test_fetched_units_widen_the_mlp() -> None:
    narrow, wide = SwiGLU(32, 48), SwiGLU(32, 58)
    units = torch.randn(1, 3, 10, 32)
    for index in range(2):
        wide.inputs[index].weight.copy_(torch.cat([narrow.inputs[index].weight, units[0, index]]))
    wide.output.weight.copy_(torch.cat([narrow.output.weight, units[0, 2].T], dim=1))
    x = torch.randn(1, 5, 32)
    torch.testing.assert_close(narrow(x) + widened(x, units), wide(x), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_decode_continues_what_a_path_began() -> None:
    model = HierarchicalMemories(SMALL)
    tokens = torch.randint(61, (2, 12))
    full = model(tokens, path=PATH)
    state = model.make_state(2, 12)
    torch.testing.assert_close(model(tokens[:, :7], state, 0, PATH), full[:, 6:7])
    for past in range(7, 12):
        torch.testing.assert_close(model(tokens[:, past : past + 1], state, past), full[:, past : past + 1])


@torch.no_grad()
def test_each_sequence_recalls_its_own_nodes() -> None:
    model = HierarchicalMemories(SMALL)
    tokens = torch.randint(61, (1, 5)).expand(2, 5)
    together = model(tokens, path=PATH)
    assert not torch.allclose(together[0], together[1])
    torch.testing.assert_close(together[1:], model(tokens[:1], path=PATH[1:]))
    with pytest.raises(ValueError, match="a context needs the path"):
        model(tokens)


def test_a_prompt_fetches_its_units_and_decode_only_reads_them() -> None:
    """3·d·(r1 + r2) numbers a layer and sequence: 3·32·10; the bank lies in tables of 3 and 9 nodes."""
    fetched = 2 * 3 * 32 * 10
    prefill, decode = traced("prefill"), traced("decode")
    gathers = [op for op in prefill.ops if op.kind is Kind.GATHER and ".bank" in op.path]
    assert len(gathers) == 2 * 2
    assert sum(prefill.tensors[op.outputs[0]].numel for op in gathers) == 2 * fetched
    assert prefill.parameters == decode.parameters > 2 * 3 * 32 * (3 * 6 + 9 * 4)  # the bank stays where it is
    assert not [op for op in decode.ops if ".bank" in op.path]
    states = [tensor.numel for tensor in decode.of_role(Role.STATE)]
    assert states.count(fetched) == 2
