"""Small ONNX models under construction, for tests of what becomes of their operators."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import hwsim
from hwsim.graph import Graph, Kind, Op

FLOAT, HALF, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
INT8, UINT8 = TensorProto.INT8, TensorProto.UINT8
MICROSOFT = "com.microsoft"


def weight(name: str, *shape: int, kind: int = FLOAT) -> onnx.TensorProto:
    return TensorProto(name=name, dims=shape, data_type=kind)


def ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


class Net:
    """A small model under construction."""

    def __init__(self, path: Path, opset: int = 24) -> None:
        self.path, self.opset = path, opset
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.constants: list[onnx.TensorProto] = []

    def feed(self, name: str, *shape: int, kind: int = FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def hold(self, tensor: onnx.TensorProto) -> str:
        self.constants.append(tensor)
        return tensor.name

    def add(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attrs: object) -> None:
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attrs))

    def model(self, *outputs: str) -> onnx.ModelProto:
        kinds = [helper.make_empty_tensor_value_info(name) for name in outputs]
        graph = helper.make_graph(self.nodes, "net", self.inputs, kinds, self.constants)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    def load(self, *outputs: str) -> Graph:
        self.path.write_bytes(self.model(*outputs).SerializeToString())
        return hwsim.load_onnx(self.path)


def only(graph: Graph, kind: Kind) -> Op:
    (op,) = [op for op in graph.ops if op.kind is kind]
    return op
