"""What `trace` records: FLOPs, roles, caches, gradients; and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

import hwsim  # noqa: E402
from hwsim.errors import GraphError, UnsupportedOpError  # noqa: E402
from hwsim.frontends.torch import trace_symbolic  # noqa: E402
from hwsim.graph import Graph, Kind, Role  # noqa: E402
from hwsim.work import work_of  # noqa: E402


class Block(nn.Module):
    """Grouped-query attention on a cache, then a gated MLP."""

    def __init__(self, width: int = 32, heads: int = 4, kv_heads: int = 2, hidden: int = 48) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, width // heads
        self.norm, self.norm2 = nn.RMSNorm(width), nn.LayerNorm(width)
        self.q = nn.Linear(width, width)
        self.k, self.v = (nn.Linear(width, kv_heads * self.dim, bias=False) for _ in range(2))
        self.gate, self.up = (nn.Linear(width, hidden, bias=False) for _ in range(2))
        self.down = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor, state: list[torch.Tensor] | None = None, past: int = 0) -> torch.Tensor:
        batch, tokens, _ = x.shape
        h = self.norm(x)
        q = self.q(h).view(batch, tokens, self.heads, self.dim).transpose(1, 2)
        k, v = (f(h).view(batch, tokens, self.kv_heads, self.dim).transpose(1, 2) for f in (self.k, self.v))
        if state is not None:
            for cache, rows in zip(state, (k, v), strict=True):
                cache[:, :, past : past + tokens] = rows
            k, v = (cache[:, :, : past + tokens] for cache in state)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=state is None, enable_gqa=True)
        x = x + y.transpose(1, 2).flatten(2)
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


def state(batch: int = 2, rows: int = 17) -> list[torch.Tensor]:
    return [torch.empty(batch, 2, rows, 8, device="meta") for _ in range(2)]


def of_kind(graph: Graph, kind: Kind) -> list:
    return [op for op in graph.ops if op.kind is kind]


def test_forward_and_backward_flops(counted_flops: Callable[..., int]) -> None:
    block, x = Block(), torch.randn(2, 8, 32)
    # The projections and the MLP by hand, 2 FLOP a MAC: q; k and v; gate, up and down; then Q·Kᵀ and P·V.
    by_hand = 2 * 16 * (32 * 32 + 2 * 32 * 16 + 3 * 32 * 48) + 2 * 2 * 2 * 4 * 8 * 8 * 8
    assert hwsim.trace(block, (x,)).matmul_flops == counted_flops(block, x) == by_hand
    assert hwsim.trace(block, (x,), backward=True).matmul_flops == counted_flops(block, x, backward=True)


def test_attention_and_norms_stay_whole() -> None:
    graph = hwsim.trace(Block(), (torch.randn(2, 8, 32),), backward=True)
    forward, backward = of_kind(graph, Kind.ATTENTION)
    expected = {"batch": 2, "heads": 4, "kv_heads": 2, "q_len": 8, "kv_len": 8, "head_dim": 8, "v_dim": 8}
    assert expected.items() <= dict(forward.attrs).items()
    assert forward.flag("causal") and not forward.flag("backward") and backward.flag("backward")
    assert [op.text("function") for op in of_kind(graph, Kind.NORM)] == [
        "rmsnorm", "layernorm", "layernorm", "rmsnorm",
    ]  # fmt: skip
    assert not graph.unmodelled


def test_every_op_knows_its_module_also_in_backward() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Sequential(nn.Linear(8, 4), nn.GELU()))
    paths = [op.path for op in hwsim.trace(model, (torch.randn(3, 8),), backward=True).ops if op.kind is Kind.MATMUL]
    # Forward, then the gradients of the second layer's input and weight, then of the first one's weight.
    assert paths == ["0", "1.0", "1.0", "1.0", "0"]


def test_a_cache_written_in_place_is_a_state_charged_for_its_rows() -> None:
    graph = hwsim.trace(Block(), (torch.randn(2, 1, 32),), {"state": state(), "past": 16})
    assert {t.name for t in graph.of_role(Role.STATE)} == {"state.0", "state.1"}
    writes = of_kind(graph, Kind.WRITE)
    assert len(writes) == 2
    for op in writes:
        work = work_of(op, graph)
        assert work.write_bytes == 2 * 2 * 1 * 8 * 4  # batch · kv heads · one row · dim · 4 B, not the cache
        assert [access.tensor for access in work.accesses if access.write] in (["state.0"], ["state.1"])
    (attention,) = of_kind(graph, Kind.ATTENTION)
    assert work_of(attention, graph).bytes_of_role(Role.STATE) == 2 * 2 * 2 * 17 * 8 * 4


def test_index_copy_into_a_cache_is_charged_for_its_rows() -> None:
    class Ring(nn.Module):
        def forward(self, rows: torch.Tensor, ring_cache: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
            return ring_cache.index_copy_(1, slots, rows).sum()

    args = torch.randn(2, 3, 8), torch.randn(2, 64, 8), torch.tensor([4, 5, 6])
    graph = hwsim.trace(Ring(), args)
    (scatter,) = of_kind(graph, Kind.SCATTER)
    assert (scatter.size("picks"), scatter.size("elements")) == (2 * 3, 8)
    assert work_of(scatter, graph).write_bytes == 2 * 3 * 8 * 4
    assert graph.tensors["ring_cache"].role is Role.STATE


def test_roles_of_weights_buffers_inputs_and_results() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)
            self.head.weight = self.embedding.weight
            self.unused = nn.Parameter(torch.zeros(5))
            self.register_buffer("scale", torch.ones(4))

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(tokens) * self.scale)

    model = Tied()
    graph = hwsim.trace(model, (torch.zeros(2, 3, dtype=torch.int64),))
    assert graph.parameters == sum(p.numel() for p in model.parameters()) == 11 * 4 + 5
    assert {t.name for t in graph.of_role(Role.BUFFER)} == {"scale"}
    assert {t.name: t.dtype for t in graph.of_role(Role.INPUT)} == {"tokens": "int64"}
    (result,) = graph.of_role(Role.OUTPUT)
    assert result.shape in ((2, 3, 11), (6, 11))


def test_gradients_are_outputs_and_saved_activations_live_until_backward() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    graph = hwsim.trace(model, (torch.randn(3, 8),), backward=True)
    gradients = {t.name for t in graph.of_role(Role.OUTPUT) if t.name.endswith(".grad")}
    assert gradients == {"0.weight.grad", "0.bias.grad", "2.weight.grad", "2.bias.grad"}
    relu = next(op for op in graph.ops if op.source == "relu")
    readers = [op for op in graph.ops if relu.outputs[0] in map(graph.storage, op.inputs) and op.kind is not Kind.VIEW]
    assert {op.source for op in readers} >= {"addmm", "mm", "threshold_backward"}


def test_a_scalar_result_is_the_loss() -> None:
    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            logits = self.layer(x)
            return {"loss": F.cross_entropy(logits, labels), "logits": logits}

    graph = hwsim.trace(WithLoss(), (torch.randn(3, 8), torch.tensor([0, 1, 2])), backward=True)
    assert [op.attrs["numel"] for op in graph.ops if op.source == "ones_like"] == [1]
    assert "nll_loss_backward" in {op.source for op in graph.ops}


def test_the_module_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 2))
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identity = [id(p) for p in model.parameters()]
    hwsim.trace(model, (torch.randn(2, 3, 8, 8),), backward=True)
    after = model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert [id(p) for p in model.parameters()] == identity
    assert all(p.grad is None and p.device.type == "cpu" for p in model.parameters())
    assert not model._forward_hooks and not torch.nn.modules.module._global_forward_hooks


def test_a_trace_leaves_torch_as_it_was() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    q = torch.empty(1, 2, 4, 8, device="meta")
    hwsim.trace(Block(), (torch.randn(2, 8, 32),))
    with FlopCounterMode(display=False) as counter:
        F.scaled_dot_product_attention(q, q, q)
    assert counter.get_total_flops() == 2 * 2 * 2 * 4 * 4 * 8


@pytest.mark.parametrize("ask", [lambda x: x[x > 0], lambda x: x if x.sum() > 0 else -x, torch.nonzero])
def test_code_that_asks_for_values_is_named(ask: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return ask(x)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Asks()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    with pytest.raises(UnsupportedOpError, match=r"module 'inner' at .*test_torch_trace\.py:\d+"):
        hwsim.trace(Outer(), (torch.randn(3),))


def test_small_literals_keep_their_values() -> None:
    class Literal(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes = torch.tensor([1, 2])
            return x.split(sizes.tolist())[int(sizes[0])] * torch.tensor(0.5)

    graph = hwsim.trace(Literal(), (torch.randn(3),))
    assert [t.shape for t in graph.of_role(Role.OUTPUT)] == [(2,)]


def test_an_op_without_a_rule_is_listed() -> None:
    with torch.library._scoped_library("hwsim_test", "DEF") as library:
        library.define("odd(Tensor x) -> Tensor")
        library.impl("odd", torch.empty_like, "Meta")

        class Odd(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return torch.ops.hwsim_test.odd(x)

        assert hwsim.trace(Odd(), (torch.randn(3),)).unmodelled == ("hwsim_test::odd",)


def test_nothing_to_differentiate_is_an_error() -> None:
    with pytest.raises(GraphError, match="nothing to differentiate"):
        hwsim.trace(nn.ReLU(), (torch.randn(3),), backward=True)


def decode_inputs(batch: int, past: int) -> dict[str, object]:
    return {"x": torch.empty(batch, 1, 32), "state": state(batch, past + 1), "past": past}


@pytest.mark.parametrize("backward", [False, True])
def test_free_sizes_bind_to_the_concrete_trace(backward: bool) -> None:
    def inputs(batch: int, tokens: int) -> dict[str, object]:
        return {"x": torch.empty(batch, tokens, 32)}

    graph = trace_symbolic(inputs, Block(), {"batch": 3, "tokens": 11}, backward=backward)
    assert graph.symbols == {"batch", "tokens"}
    for batch, tokens in ((2, 5), (7, 64)):
        same_work(
            graph.bind(batch=batch, tokens=tokens), hwsim.trace(Block(), (), inputs(batch, tokens), backward=backward)
        )


def test_free_sizes_of_a_decode_step() -> None:
    graph = trace_symbolic(decode_inputs, Block(), {"batch": 3, "past": 100})
    for batch, past in ((2, 5), (64, 4096)):
        same_work(graph.bind(batch=batch, past=past), hwsim.trace(Block(), (), decode_inputs(batch, past)))


def same_work(left: Graph, right: Graph) -> None:
    assert [(op.kind, op.source, op.path, dict(op.attrs)) for op in left.ops] == [
        (op.kind, op.source, op.path, dict(op.attrs)) for op in right.ops
    ]
    for one, other in zip(left.ops, right.ops, strict=True):
        assert work_of(one, left).nbytes == work_of(other, right).nbytes


def test_a_size_that_the_code_fixes_is_an_error() -> None:
    class Fixed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.view(3, 32) if x.shape[0] == 3 else x

    with pytest.raises(GraphError, match=r"'batch' cannot stay free.* 3"):
        trace_symbolic(lambda batch: {"x": torch.empty(batch, 32)}, Fixed(), {"batch": 3})
    with pytest.raises(GraphError, match="'batch' must be at least 2"):
        trace_symbolic(lambda batch: {"x": torch.empty(batch, 32)}, Block(), {"batch": 1})


def test_arithmetic_of_free_sizes() -> None:
    class Sizes(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            n = x.shape[0]
            sizes = [n // 3, n % 5, math.ceil(n / 4), -(-n // 7) * 7 - n, torch.sym_max(n, 50), n * n + 2 * n]
            return [x.new_ones(size) for size in (*sizes, torch.sym_min(n, 50))]

    graph = trace_symbolic(lambda n: {"x": torch.empty(n)}, Sizes(), {"n": 29})
    for n in (11, 48, 64):
        made = [op.attrs["numel"] for op in graph.bind(n=n).ops if op.kind is Kind.FILL]
        assert made == [n // 3, n % 5, math.ceil(n / 4), -n % 7, max(n, 50), n * n + 2 * n, min(n, 50)]
