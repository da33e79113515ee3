"""The node tests of onnx's own backend suite: how much imports, and that every shape is the one of the test's data."""

import math
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from onnx.backend.test.case.node import collect_testcases  # noqa: E402
from onnx.backend.test.case.test_case import TestCase as Case  # noqa: E402

import hwsim  # noqa: E402
from hwsim.errors import HwsimError, UnsupportedOpError  # noqa: E402
from hwsim.graph import Graph, Role  # noqa: E402

# Outputs whose number of elements only a run tells: the graph has the most that can come out.
UPPER_BOUNDS = "test_unique_"
REFUSED = ("Loop", "Scan", "If", "Sequence", "sequence", "Optional", "optional")


@dataclass
class Outcome:
    """What became of the suite."""

    total: int = 0
    graphs: dict[str, Graph] = field(default_factory=dict)
    cases: dict[str, Case] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    with_elements: list[str] = field(default_factory=list)


def elements(case: Case) -> dict[str, int]:
    """The integers that the test feeds as data and that decide shapes: lengths, axes, sizes."""
    dims = {}
    for value, array in zip(case.model.graph.input, case.data_sets[0][0], strict=True):
        if isinstance(array, np.ndarray | np.generic) and array.dtype in (np.int32, np.int64) and array.ndim < 2:
            names = [value.name] if array.ndim == 0 else [f"{value.name}[{place}]" for place in range(array.size)]
            dims.update(zip(names, np.asarray(array).reshape(-1).tolist(), strict=True))
    return dims


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    path: Path = tmp_path_factory.mktemp("nodes") / "model.onnx"
    result = Outcome(total=len(cases))
    for case in cases:
        path.write_bytes(case.model.SerializeToString())
        result.cases[case.name] = case
        try:
            result.graphs[case.name] = hwsim.load_onnx(path)
        except UnsupportedOpError:
            try:
                result.graphs[case.name] = hwsim.load_onnx(path, elements(case))
                result.with_elements.append(case.name)
            except HwsimError as error:
                result.refused[case.name] = str(error)
    return result


def test_nearly_all_import(outcome: Outcome) -> None:
    """The rest are loops, branches on data, sequences and optionals, each refused by its name."""
    imported = len(outcome.graphs)
    print(f"\n{imported} of {outcome.total} node tests import: {imported / outcome.total:.1%}")
    print(f"{len(outcome.with_elements)} of them with the elements of an integer input given")
    print("unmodelled:", dict(Counter(name for graph in outcome.graphs.values() for name in graph.unmodelled)))
    assert imported / outcome.total >= 0.97
    assert [text for text in outcome.refused.values() if not any(word in text for word in REFUSED)] == []
    assert all("\n" not in text for text in outcome.refused.values())


def test_shapes_are_those_of_the_test_data(outcome: Outcome) -> None:
    """The arrays that the suite compares with are independent of any shape rule."""
    wrong, compared = [], 0
    for name, graph in outcome.graphs.items():
        case = outcome.cases[name]
        for value, array in zip(case.model.graph.output, case.data_sets[0][1], strict=True):
            tensor = graph.tensors.get(value.name)
            if tensor is None:
                # Strings have no number format: they are left out, and the operator is listed.
                assert np.asarray(array).dtype.kind in "OU" and graph.unmodelled, name
                continue
            compared += 1
            exact = not name.startswith(UPPER_BOUNDS)
            stored = isinstance(array, onnx.TensorProto)
            shape = tuple(array.dims) if stored else np.asarray(array).shape
            same = tensor.shape == shape if exact else math.prod(tensor.shape) >= math.prod(shape)
            wrong += [] if same else [(name, value.name, tensor.shape, shape)]
    assert wrong == []
    assert compared > 1800


def test_shapes_are_those_that_the_model_states(outcome: Outcome) -> None:
    for name, graph in outcome.graphs.items():
        for value in outcome.cases[name].model.graph.output:
            tensor = graph.tensors.get(value.name)
            dims = value.type.tensor_type.shape.dim
            if (
                tensor is not None
                and all(dim.HasField("dim_value") for dim in dims)
                and not name.startswith(UPPER_BOUNDS)
            ):
                assert tensor.shape == tuple(dim.dim_value for dim in dims), name


def test_formats_are_those_that_the_model_states(outcome: Outcome) -> None:
    bits = {
        onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16", onnx.TensorProto.DOUBLE: "fp64",
        onnx.TensorProto.BFLOAT16: "bf16", onnx.TensorProto.INT64: "int64", onnx.TensorProto.INT32: "int32",
        onnx.TensorProto.INT8: "int8", onnx.TensorProto.UINT8: "uint8", onnx.TensorProto.BOOL: "bool",
    }  # fmt: skip
    wrong = []
    for name, graph in outcome.graphs.items():
        for value in outcome.cases[name].model.graph.output:
            tensor, stated = graph.tensors.get(value.name), bits.get(value.type.tensor_type.elem_type)
            if tensor is not None and stated is not None and tensor.dtype != stated:
                wrong.append((name, value.name, tensor.dtype, stated))
    assert wrong == []


def test_every_graph_is_sound(outcome: Outcome) -> None:
    """Work is finite, every operand exists, and what an op reads was made before or is there from the start."""
    given = {Role.INPUT, Role.WEIGHT, Role.BUFFER, Role.STATE}
    for name, graph in outcome.graphs.items():
        assert math.isfinite(graph.flops) and graph.flops >= 0, name
        made: set[str] = set()
        for op in graph.ops:
            for operand in op.inputs:
                owner = graph.storage(operand)
                assert operand in made or owner in made or graph.tensors[owner].role in given, (name, operand)
            made.update(op.outputs, map(graph.storage, op.outputs))
        for tensor in graph.tensors.values():
            assert math.isfinite(tensor.nbytes), name


def test_functions_and_their_expansions_agree(outcome: Outcome) -> None:
    """Whole operators and the bodies that the standard gives them have the same products where both have any."""
    compared = 0
    for name, graph in outcome.graphs.items():
        whole = outcome.graphs.get(name.removesuffix("_expanded"))
        if name.endswith("_expanded") and "attention" in name and whole is not None and whole.matmul_flops:
            assert graph.matmul_flops == whole.matmul_flops, name
            compared += 1
    assert compared > 60
