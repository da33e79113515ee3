"""A state that an op computes anew is written by that op."""

from __future__ import annotations

from hwsim.frontends.normalise import update_in_place
from hwsim.graph import Graph, Kind, Op, Role, Tensor


def step(*between: Op) -> Graph:
    """new = f(state, x); state.copy_(new), with other ops in between."""
    tensors = {
        "x": Tensor("x", (8,), "fp32", Role.INPUT),
        "state": Tensor("state", (8,), "fp32", Role.STATE),
        "new": Tensor("new", (8,), "fp32"),
        "y": Tensor("y", (8,), "fp32", Role.OUTPUT),
    }
    update = Op(Kind.ELEMENTWISE, ("state", "x"), ("new",), {"function": "add", "numel": 8}, "add")
    write = Op(Kind.WRITE, ("new",), ("state",), {"numel": 8}, "copy_")
    return Graph("step", tensors, (update, *between, write))


def test_the_copy_disappears():
    (op,) = update_in_place(step()).ops
    assert (op.inputs, op.outputs) == (("state", "x"), ("state",))


def test_a_result_with_other_readers_is_copied():
    read = Op(Kind.ELEMENTWISE, ("new",), ("y",), {"function": "relu", "numel": 8}, "relu")
    assert len(update_in_place(step(read)).ops) == 3


def test_a_state_that_is_read_in_between_is_copied():
    read = Op(Kind.ELEMENTWISE, ("state",), ("y",), {"function": "relu", "numel": 8}, "relu")
    assert len(update_in_place(step(read)).ops) == 3
