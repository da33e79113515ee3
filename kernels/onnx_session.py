"""A torch module as an ONNX Runtime session on the CPU."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn


def onnx_call(network: nn.Module, inputs: Mapping[str, Tensor]) -> Callable[[], object]:
    """A run of the exported network on the inputs, with as many threads as torch uses."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/network.onnx"
        torch.onnx.export(network, (), path, kwargs=dict(inputs), dynamo=True, external_data=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feeds = {name: tensor.contiguous().numpy() for name, tensor in inputs.items()}
    return partial(session.run, None, feeds)
