"""Small graphs and cards that tests build by hand, and hypothesis strategies over them."""

from __future__ import annotations

from hypothesis import strategies as st

from hwsim.device import Device, load_device
from hwsim.graph import Graph, Kind, Op, Role, Tensor

TOY_CARD = """
card: toy
title: A card with round figures
family: roofline
sources: {made: {title: made for tests}}
compute:
  matmul: {bf16: {value: 100 TFLOP/s, mark: assumed, source: made}}
  vector: {fp32: {value: 10 TFLOP/s, mark: assumed, source: made}}
  special: {value: 1 TFLOP/s, mark: assumed, source: made}
memories:
  - name: hbm
    kind: main
    capacity: {value: 16 GB, mark: assumed, source: made}
    bandwidth: {value: 1 TB/s, mark: assumed, source: made}
    read_energy: {value: 5 pJ/bit, mark: assumed, source: made}
    write_energy: {value: 5 pJ/bit, mark: assumed, source: made}
  - name: ddr
    kind: main
    capacity: {value: 64 GB, mark: assumed, source: made}
    bandwidth: {value: 100 GB/s, mark: assumed, source: made}
    read_energy: {value: 20 pJ/bit, mark: assumed, source: made}
    write_energy: {value: 20 pJ/bit, mark: assumed, source: made}
links:
  - name: pcie
    to: host
    bandwidth: {value: 10 GB/s, mark: assumed, source: made}
    latency: {value: 0 s, mark: assumed, source: made}
    energy: {value: 30 pJ/bit, mark: assumed, source: made}
power:
  idle: {value: 50 W, mark: assumed, source: made}
energy:
  matmul: {bf16: {value: 1 pJ/FLOP, mark: assumed, source: made}}
  vector: {fp32: {value: 2 pJ/FLOP, mark: assumed, source: made}}
"""


def toy_device(tmp_path, **changes: object) -> Device:
    """The toy card as a device; ``changes`` by dotted path with ``__`` for the dots."""
    path = tmp_path / "toy.yaml"
    path.write_text(TOY_CARD)
    return load_device(path, {name.replace("__", "."): value for name, value in changes.items()})


def mlp(layers: int = 4, width: int = 64, rows: int = 8, shared_weight: bool = False) -> Graph:
    """``layers`` times (linear, relu, add the input back), written out op by op, in bf16."""
    tensors = {"x": Tensor("x", (rows, width), "bf16", Role.INPUT)}
    ops = []
    stream = "x"
    for layer in range(layers):
        weight = "w" if shared_weight else f"w{layer}"
        h, r, y = (f"{name}{layer}" for name in "hry")
        tensors[weight] = Tensor(weight, (width, width), "bf16", Role.WEIGHT)
        last = layer == layers - 1
        for name in (h, r, y):
            role = Role.OUTPUT if last and name == y else Role.ACTIVATION
            tensors[name] = Tensor(name, (rows, width), "bf16", role)
        numel = {"numel": rows * width}
        sizes = {"batch": 1, "m": rows, "n": width, "k": width}
        ops.append(Op(Kind.MATMUL, (stream, weight), (h,), sizes, "mm", f"layers.{layer}"))
        ops.append(Op(Kind.ELEMENTWISE, (h,), (r,), {"function": "relu", **numel}, "relu", f"layers.{layer}"))
        ops.append(Op(Kind.ELEMENTWISE, (r, stream), (y,), {"function": "add", **numel}, "add", f"layers.{layer}"))
        stream = y
    return Graph("mlp", tensors, tuple(ops))


def mlps() -> st.SearchStrategy[Graph]:
    """Random stacks of layers."""
    size = st.integers(1, 300)
    return st.builds(mlp, st.integers(1, 12), size, size, st.booleans())
