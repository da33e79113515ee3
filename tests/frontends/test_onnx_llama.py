"""A small Llama through torch's exporter: its products equal hand arithmetic, whatever level it was exported at."""

import importlib.util
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

import hwsim  # noqa: E402
from hwsim.graph import Graph, Kind, Role  # noqa: E402

LAYERS, WIDTH, HEADS, KV_HEADS, HEAD, HIDDEN, VOCABULARY = 2, 64, 4, 2, 16, 128, 100


class Block(nn.Module):
    """Grouped-query attention with rotary positions and a cache, then a gated MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.RMSNorm(WIDTH) for _ in range(2))
        sizes = {"q": (WIDTH, WIDTH), "k": (WIDTH, KV_HEADS * HEAD), "v": (WIDTH, KV_HEADS * HEAD), "o": (WIDTH, WIDTH)}
        sizes |= {"gate": (WIDTH, HIDDEN), "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH)}
        self.maps = nn.ModuleDict({name: nn.Linear(*size, bias=False) for name, size in sizes.items()})

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, past: tuple[torch.Tensor, ...]) -> tuple:
        batch, tokens, _ = x.shape
        y = self.norms[0](x)
        q, k, v = (self.maps[name](y).view(batch, tokens, -1, HEAD).transpose(1, 2) for name in "qkv")
        q, k = (z * cos + torch.cat((-z[..., HEAD // 2 :], z[..., : HEAD // 2]), -1) * sin for z in (q, k))
        if past:
            k, v = torch.cat((past[0], k), 2), torch.cat((past[1], v), 2)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=not past, enable_gqa=True)
        x = x + self.maps["o"](mixed.transpose(1, 2).reshape(batch, tokens, -1))
        y = self.norms[1](x)
        return x + self.maps["down"](F.silu(self.maps["gate"](y)) * self.maps["up"](y)), k, v


class Llama(nn.Module):
    """Token ids and positions in, logits and caches out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, ids: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *past: torch.Tensor) -> tuple:
        x, caches = self.embedding(ids), []
        for index, block in enumerate(self.blocks):
            x, k, v = block(x, cos, sin, past[2 * index : 2 * index + 2])
            caches += [k, v]
        return (self.head(self.norm(x)), *caches)


def flops(batch: int, tokens: int, context: int) -> int:
    """2 FLOP a multiply-add: four attention maps, three of the MLP, scores and values, the head."""
    maps = 2 * WIDTH * WIDTH + 2 * WIDTH * KV_HEADS * HEAD + 3 * WIDTH * HIDDEN
    attention = 2 * batch * HEADS * tokens * context * HEAD
    return 2 * (LAYERS * (batch * tokens * maps + attention) + batch * tokens * WIDTH * VOCABULARY)


PARAMETERS = (
    2 * VOCABULARY * WIDTH + WIDTH
    + LAYERS * (2 * WIDTH * WIDTH + 2 * WIDTH * KV_HEADS * HEAD + 3 * WIDTH * HIDDEN + 2 * WIDTH)
)  # fmt: skip


def arguments(batch: int, tokens: int, past: int) -> tuple[torch.Tensor, ...]:
    caches = [torch.zeros(batch, KV_HEADS, past, HEAD) for _ in range(2 * LAYERS)] if past else []
    return (torch.zeros(batch, tokens, dtype=torch.long), torch.rand(tokens, HEAD), torch.rand(tokens, HEAD), *caches)


def exported(path: Path, opset: int, args: tuple[torch.Tensor, ...], **options: object) -> Path:
    names = ["ids", "cos", "sin", *(f"past_{index}" for index in range(len(args) - 3))]
    outputs = ["logits", *(f"present_{index}" for index in range(2 * LAYERS))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Llama().eval(), args, dynamo=True, optimize=False, opset_version=opset, verbose=False,
            input_names=names, output_names=outputs, **options,
        )  # fmt: skip
    program.save(path)
    return path


@pytest.fixture(scope="module", params=[20, 23], ids=["attention decomposed", "attention whole"])
def graphs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Graph]:
    """Prefill of 5 tokens and one step behind 7, with a batch of 2."""
    folder = tmp_path_factory.mktemp("llama")
    jobs = {"prefill": arguments(2, 5, 0), "decode": arguments(2, 1, 7)}
    return {
        name: hwsim.load_onnx(exported(folder / f"{name}.onnx", request.param, args)) for name, args in jobs.items()
    }


def test_products_equal_hand_arithmetic(graphs: dict[str, Graph]) -> None:
    assert graphs["prefill"].matmul_flops == flops(2, 5, 5)
    assert graphs["decode"].matmul_flops == flops(2, 1, 8)


def test_parameters_and_coverage(graphs: dict[str, Graph]) -> None:
    for graph in graphs.values():
        assert graph.parameters == PARAMETERS
        assert graph.unmodelled == ()


def test_the_cache_is_a_state_and_only_new_rows_are_written(graphs: dict[str, Graph]) -> None:
    graph = graphs["decode"]
    rows = 2 * KV_HEADS * HEAD
    assert graph.bytes_of(Role.STATE) == 2 * LAYERS * 8 * rows * 4
    writes = [op for op in graph.ops if op.kind is Kind.WRITE]
    assert [op.size("numel") for op in writes] == [rows] * (2 * LAYERS)
    assert all(graph.storage(f"past_{index}") == f"present_{index}" for index in range(2 * LAYERS))


def test_free_sizes_come_from_dims(tmp_path: Path) -> None:
    """Exported once with a free batch, then bound."""
    batch = torch.export.Dim("batch", min=2, max=64)
    shapes = {"ids": {0: batch}, "cos": None, "sin": None, "past": tuple({0: batch} for _ in range(2 * LAYERS))}
    path = exported(tmp_path / "free.onnx", 23, arguments(2, 1, 7), dynamic_shapes=shapes)
    for size in (2, 16):
        assert hwsim.load_onnx(path, {"batch": size}).matmul_flops == flops(size, 1, 8)


@pytest.mark.skipif(importlib.util.find_spec("hwsim.frontends.torch") is None, reason="needs the torch front end")
def test_both_front_ends_agree(graphs: dict[str, Graph]) -> None:
    for name, args in (("prefill", arguments(2, 5, 0)), ("decode", arguments(2, 1, 7))):
        traced = hwsim.trace(Llama().eval(), args)
        assert traced.matmul_flops == graphs[name].matmul_flops
        assert traced.parameters == graphs[name].parameters
