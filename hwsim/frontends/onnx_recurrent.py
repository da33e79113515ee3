"""Rules of ONNX's LSTM, GRU and RNN: input products for all steps at once, then the steps one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from hwsim.errors import GraphError
from hwsim.frontends.onnx_node import Node, Shape, rule
from hwsim.graph import Kind, Repeat

# Gates of each cell. The biases come with the input products.
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True, slots=True)
class _Cell:
    """Sizes of a recurrent layer; ``directions`` is 2 for a bidirectional one."""

    steps: int
    batch: int
    inputs: int
    hidden: int
    directions: int
    gates: int


@rule(*_GATES)
def _recurrent(node: Node) -> None:
    """X [T, B, I] (layout 1: [B, T, I]), W [dir, gates*H, I], R [dir, gates*H, H]."""
    swapped = bool(node.integer("layout"))
    data = node.shape()
    steps, batch = (data[1], data[0]) if swapped else data[:2]
    directions, _, hidden = node.shape(2)
    if directions not in (1, 2):
        raise GraphError(f"{node.where}: {directions} directions; expected 1 or 2")
    cell = _Cell(steps, batch, data[2], hidden, directions, _GATES[node.key])
    states = (batch, directions, hidden) if swapped else (directions, batch, hidden)
    node.give(0, (batch, steps, directions, hidden) if swapped else (steps, directions, batch, hidden))
    node.give(1, states)
    node.give(2, states)
    if node.makes(0) and node.makes(1):
        node.draft.bases[node.proto.output[1]] = node.proto.output[0]
    for direction in range(directions):
        _direction(node, cell, direction)


def _direction(node: Node, cell: _Cell, direction: int) -> None:
    """The products with W have no order in time; those with R wait for the step before."""
    draft, dtype = node.draft, node.dtype()
    state, width = (cell.batch, cell.hidden), cell.gates * cell.hidden
    weights = [
        _part(node, f"{label} {direction}", node.shape(index)[1:], node.name(index))
        for label, index in (("W", 1), ("R", 2))
    ]
    bias = [node.name(3)] if node.has(3) else []
    projected = node.inner(f"inputs {direction}", (cell.steps, cell.batch, width), dtype)
    node.emit(
        Kind.MATMUL,
        (node.name(0), weights[0], *bias),
        (projected,),
        batch=1,
        m=cell.steps * cell.batch,
        n=width,
        k=cell.inputs,
    )

    # The states lie in Y; where nobody asks for it, in the last state.
    home = next((node.proto.output[index] for index in (0, 1) if node.makes(index)), None)
    before = _part(node, f"state before {direction}", state, home)
    after = _part(node, f"state {direction}", state, home)
    memory = (
        [_part(node, f"cell {direction}", state, node.proto.output[2] if node.makes(2) else None)]
        if node.key == "LSTM"
        else []
    )
    row = _part(node, f"row {direction}", (cell.batch, width), projected)
    gates = node.inner(f"gates {direction}", (cell.batch, width), dtype)
    for index, start_value in zip((5, 6), (before, *memory), strict=False):
        _initialise(node, index, start_value)
    start = len(draft.ops)
    node.emit(Kind.MATMUL, (before, weights[1]), (gates,), batch=1, m=cell.batch, n=width, k=cell.hidden)
    # Gate activations and the state's update in one kernel: about a sigmoid and a product per gate.
    node.emit(Kind.ELEMENTWISE, (gates, row, *memory), (after, *memory), function="silu", numel=cell.batch * width)
    once = frozenset({*(draft.storage(name) for name in (before, after, row, weights[1], *memory))})
    draft.repeats.append(Repeat(start, len(draft.ops), cell.steps, once))


def _initialise(node: Node, index: int, state: str) -> None:
    """A state starts as input ``index``, or as zeros."""
    if node.has(index):
        node.emit(
            Kind.COPY, (node.name(index),), (state,), numel=prod(node.draft.values[state].shape or ()), strided=False
        )
    else:
        node.emit(Kind.FILL, (), (state,), numel=prod(node.draft.values[state].shape or ()))


def _part(node: Node, label: str, shape: Shape, home: str | None) -> str:
    """A value that is a part of ``home`` (or, without one, lies by itself)."""
    part = node.inner(label, shape, node.dtype())
    if home is not None:
        node.draft.bases[part] = home
    return part
