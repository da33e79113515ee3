"""End-to-end rows (op "model"): whole networks of the zoo with random weights, in several modes.

A row's spec says the model, its phase, batch and prompt (1 for images), dtype, mode and, where there are any, the
overrides of the preset's config. The presets are repeated here so that no YAML reader is needed on a bare host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from hwsim.kernels.families import DTYPES, Call, Cold, Family, Fields
from hwsim.kernels.fast_recurrence import use_fast_kernels
from hwsim.kernels.training import TrainStep

Points = tuple[tuple[str, int, int], ...]

PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet-50": ("resnet.ResNet", {"blocks": (3, 4, 6, 3), "bottleneck": True}),
    "vit-b-16": ("vit.ViT", {"layers": 12, "width": 768, "heads": 12, "hidden": 3072, "patch": 16, "image_size": 224}),
    "vit-l-16": ("vit.ViT", {"layers": 24, "width": 1024, "heads": 16, "hidden": 4096, "patch": 16, "image_size": 224}),
    "gla-1.3b": ("gla.GLA", {"layers": 24, "width": 2048, "heads": 4, "hidden": 5632}),
    "mamba2-1.3b": ("mamba2.Mamba2", {"layers": 48, "width": 2048}),
    "llama-3.2-1b": (
        "llama.Llama",
        {"layers": 16, "width": 2048, "heads": 32, "kv_heads": 8, "head_dim": 64, "hidden": 8192}
        | {"tied": True, "rope_stretch": 32},
    ),
    "llama-3.1-8b": (
        "llama.Llama",
        {"layers": 32, "width": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128, "hidden": 14336, "rope_stretch": 8},
    ),
    "llama-2-13b": (
        "llama.Llama",
        {"layers": 40, "width": 5120, "heads": 40, "kv_heads": 40, "head_dim": 128, "hidden": 13824}
        | {"vocab": 32000, "rope_base": 10000},
    ),
}
RECURRENT = ("gla-1.3b", "mamba2-1.3b")
CONVOLUTIONAL = ("resnet-50",)

GRAPH_POINTS: dict[str, Points] = {
    "resnet-50": tuple(("forward", batch, 1) for batch in (1, 8, 32, 128)),
    "vit-b-16": tuple(("forward", batch, 1) for batch in (1, 8, 64)),
    "vit-l-16": tuple(("forward", batch, 1) for batch in (1, 8, 64)),
    "llama-3.2-1b": (
        *(("decode", batch, prompt) for batch, prompt in ((1, 128), (1, 2048), (1, 32768), (16, 8192), (64, 2048))),
        *(("prefill", batch, prompt) for batch, prompt in ((1, 128), (1, 2048), (4, 1024))),
        *(("train", batch, prompt) for batch, prompt in ((1, 1024), (4, 1024), (1, 4096))),
    ),
    "llama-3.1-8b": (
        *(("decode", batch, prompt) for batch, prompt in ((1, 2048), (1, 32768), (8, 2048), (64, 2048))),
        *(("prefill", batch, prompt) for batch, prompt in ((1, 128), (1, 2048), (1, 8192))),
    ),
    "llama-2-13b": (("decode", 1, 2048), ("decode", 8, 2048), ("prefill", 1, 512), ("prefill", 1, 2048)),
    **dict.fromkeys(RECURRENT, (("decode", 1, 2048), ("decode", 32, 2048), ("prefill", 1, 2048), ("prefill", 8, 2048))),
}
"""Measured in the modes eager and graph on a GPU."""
COMPILE_POINTS: dict[str, Points] = {
    "vit-b-16": (("forward", 8, 1), ("forward", 64, 1)),
    "resnet-50": (("forward", 1, 1), ("forward", 32, 1)),
    "llama-3.2-1b": (("decode", 1, 2048), ("prefill", 1, 2048), ("decode", 64, 2048), ("train", 1, 1024)),
    "vit-l-16": (("forward", 8, 1),),
    "gla-1.3b": (("prefill", 1, 2048),),
    "llama-3.1-8b": (("decode", 1, 2048), ("prefill", 1, 2048)),
}
"""Measured in the mode compile too, after everything else."""
CPU_MODELS: dict[str, tuple[Points, dict[str, int]]] = {
    "resnet-50": ((("forward", 1, 1), ("forward", 4, 1)), {}),
    "vit-b-16": ((("forward", 1, 1), ("forward", 4, 1)), {}),
    "llama-3.2-1b": ((("forward", 1, 32), ("forward", 1, 128)), {"layers": 4, "vocab": 32000}),
}
"""Measured in the modes eager and onnxruntime on a CPU, in fp32; points and overrides."""


def model_family(device: torch.device) -> Family:
    """Whole models on a kind of device."""
    tuned = tuple(tuple(row(*point, name) for point in GRAPH_POINTS[name]) for name in RECURRENT)
    return Family(
        lambda draw: model_specs(draw.device),
        build_model,
        per_graph=1,
        cold=Cold.NONE,
        energy_share=1.0,
        repeats=7,
        tuning=tuned if device.type == "cuda" else (),
    )


def model_specs(device: torch.device) -> Iterator[Fields]:
    """Every end-to-end row, model by model; those that are compiled last."""
    if device.type != "cuda":
        for name, (points, overrides) in CPU_MODELS.items():
            for point in points:
                for mode in ("eager", "onnxruntime"):
                    yield row(*point, name, mode, "fp32", overrides)
        return
    for name, points in GRAPH_POINTS.items():
        for point in points:
            for mode in ("graph", "eager"):
                yield row(*point, name, mode)
    for name, points in COMPILE_POINTS.items():
        for point in points:
            yield row(*point, name, "compile")


def row(
    phase: str,
    batch: int,
    prompt: int,
    model: str,
    mode: str = "graph",
    dtype: str = "bf16",
    overrides: Mapping[str, int] | None = None,
) -> Fields:
    """The fields of a row."""
    fields: Fields = {"model": model, "phase": phase, "batch": batch, "prompt": prompt, "mode": mode, "dtype": dtype}
    return {**fields, "overrides": dict(overrides)} if overrides else fields


def build_model(
    device: torch.device,
    model: str,
    phase: str,
    batch: int,
    prompt: int,
    mode: str,
    dtype: str,
    overrides: Mapping[str, int] | None = None,
) -> Call:
    """One run of the phase in the mode; graph and eager differ only in how the call is timed."""
    if model in RECURRENT and device.type == "cuda":
        _fast_kernels()
    network = built(model, device, dtype, tuple(sorted((overrides or {}).items())))
    inputs = random_inputs(network, device, dtype, phase, batch, prompt)
    network.train(phase == "train")
    if mode == "onnxruntime":
        from hwsim.kernels.onnx_session import onnx_call

        return onnx_call(network, inputs)
    run: Any = network
    if mode == "compile":
        torch._dynamo.reset()
        run = torch.compile(network, dynamic=False)
    return TrainStep(network, partial(run, **inputs)) if phase == "train" else partial(run, **inputs)


@cache
def _fast_kernels() -> None:
    use_fast_kernels()


@lru_cache(maxsize=1)
def built(model: str, device: torch.device, dtype: str, overrides: Sequence[tuple[str, int]]) -> nn.Module:
    """The network with random weights, kept while its rows are measured."""
    name, config = PRESETS[model]
    module, class_name = name.split(".")
    room = import_module(f"hwsim.models.{module}")
    with torch.inference_mode(False), defaults(device, dtype):
        made = getattr(room, class_name)(getattr(room, f"{class_name}Config")(**config | dict(overrides)))
    network: nn.Module = made
    if model in CONVOLUTIONAL:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def random_inputs(
    network: nn.Module, device: torch.device, dtype: str, phase: str, batch: int, prompt: int
) -> dict[str, Any]:
    """The example inputs of the phase, filled with random data, states included."""
    example: Any = network.example_inputs
    with defaults(device, dtype):
        inputs: dict[str, Any] = example(phase, batch, prompt)
        for tensor in tensors_of(inputs):
            if tensor.is_floating_point():
                tensor.normal_()
            else:
                tensor.random_(int(network.vocab))  # type: ignore[arg-type]
    if "images" in inputs and any(isinstance(part, nn.BatchNorm2d) for part in network.modules()):
        inputs["images"] = inputs["images"].to(memory_format=torch.channels_last)
    return inputs


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors in nested dicts and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from tensors_of(part)


@contextmanager
def defaults(device: torch.device, dtype: str) -> Iterator[None]:
    """New tensors are of this device and, if floating point, of this dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)
