"""From a model's name to its graph: zoo presets, ONNX files, and `package.module:factory`.

Captures of the zoo are symbolic in batch and prompt, folded, and cached on disk by the content of what they depend
on, so that neither a second case nor a second run imports torch. Captures of the presets ship with the package.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property, lru_cache
from hashlib import sha256
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hwsim.errors import GraphError, HwsimError, InputError, Problem, shown
from hwsim.fold import fold
from hwsim.graph import Graph
from hwsim.graphfile import VERSION, dump_graph, read_graph
from hwsim.zoo import Preset, find_preset

if TYPE_CHECKING:
    from torch import nn

_MODULE = re.compile(r"\bhwsim(?:\.\w+)+")
_TRACER = ("hwsim.frontends.torch", "hwsim.fold", "hwsim.graphfile")
_WORDS = ("hwsim.errors", "hwsim.units")  # what messages say changes no graph
HINTS = {"batch": 3, "prompt": 1531}  # sizes while tracing: neither 0, 1 nor equal to a model's own sizes


class Model(Protocol):
    """Something that has a graph in each of its phases."""

    @property
    def name(self) -> str:
        """The name that results carry."""
        ...

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases that `capture` accepts; generate is made of prefill and decode."""
        ...

    @property
    def identity(self) -> str:
        """A digest of all that the graphs depend on."""
        ...

    def capture(self, phase: str) -> Graph:
        """The folded graph of ``phase`` with the sizes batch and prompt left free where the model has them."""
        ...


def find_model(name: str, overrides: Mapping[str, Any] | None = None, dims: Mapping[str, int] | None = None) -> Model:
    """The model that ``name`` stands for: a zoo preset, a path to ``.onnx``, or ``package.module:factory``.

    ``overrides`` change a preset's config; ``dims`` give the symbolic sizes of an ONNX file.
    """
    zoo, onnx = ":" not in name and not name.endswith(".onnx"), name.endswith(".onnx")
    if overrides and not zoo:
        raise InputError(f"model '{name}' has no settings: only models of the zoo do (got {', '.join(overrides)})")
    if dims and not onnx:
        raise InputError(f"model '{name}' has no symbolic dims: only ONNX files do (got {', '.join(dims)})")
    if onnx:
        return OnnxModel(Path(name), dims or {})
    if not zoo:
        return FactoryModel(name)
    return ZooModel(find_preset(name), dict(overrides or {}))


@dataclass(frozen=True)
class GraphModel:
    """A graph that exists already, offered as a model with the single phase ``forward``."""

    graph: Graph

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.graph.name

    @property
    def phases(self) -> tuple[str, ...]:
        """Just the graph as it is."""
        return ("forward",)

    @cached_property
    def identity(self) -> str:
        """The digest of the graph."""
        return _digest(json.dumps(dump_graph(self.graph), sort_keys=True))

    def capture(self, phase: str) -> Graph:
        """The graph, folded."""
        return fold(self.graph)


@dataclass(frozen=True)
class OnnxModel:
    """An ONNX file with its symbolic sizes given."""

    path: Path
    dims: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without the suffix."""
        return self.path.stem

    @property
    def phases(self) -> tuple[str, ...]:
        """A file holds one graph."""
        return ("forward",)

    @cached_property
    def identity(self) -> str:
        """The digest of the file and the sizes."""
        try:
            content = sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise GraphError(f"{self.path}: cannot be read: {error.strerror}") from None
        return _digest(content, json.dumps(dict(self.dims), sort_keys=True))

    def capture(self, phase: str) -> Graph:
        """The file's graph, folded."""
        from hwsim.frontends.onnx import load_onnx

        return fold(load_onnx(self.path, dims=self.dims))


@dataclass(frozen=True)
class FactoryModel:
    """`package.module:factory`; the factory returns a module with ``example_inputs`` as those of the zoo have, or a
    tuple (module, args) or (module, args, kwargs)."""

    name: str

    @cached_property
    def _made(self) -> Any:
        module, _, attribute = self.name.partition(":")
        _require_torch()
        import torch

        if "" not in sys.path:
            sys.path.insert(0, "")
        if not module or not attribute:
            raise InputError(f"model '{self.name}': expected package.module:factory")
        try:
            factory = getattr(import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise InputError(f"model '{self.name}': {error}") from None
        with self._told(), torch.device("meta"):
            made = factory()
        if not isinstance(made[0] if isinstance(made, tuple) and made else made, torch.nn.Module):
            expected = "a torch.nn.Module, or a tuple of it, args and kwargs"
            raise InputError(Problem(f"model '{self.name}': what it makes", got=shown(made), expected=expected))
        return made

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the model's own code raises is an error of the input."""
        try:
            yield
        except HwsimError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"model '{self.name}': its code fails: {reason}") from error

    @property
    def phases(self) -> tuple[str, ...]:
        """Those of the zoo for a module with ``example_inputs``, else forward and train."""
        made = self._made
        return (
            ("prefill", "decode", "generate", "train", "forward")
            if hasattr(made, "make_state")
            else ("forward", "train")
        )

    @cached_property
    def identity(self) -> str:
        """The digest of the captured forward graph: the factory's code may live anywhere."""
        return _digest(json.dumps(dump_graph(self.capture("forward")), sort_keys=True))

    def capture(self, phase: str) -> Graph:
        """The traced module, folded; its sizes stay free only for modules with ``example_inputs``."""
        from hwsim.frontends.torch import trace

        made = self._made
        with self._told():
            if hasattr(made, "example_inputs"):
                return trace_module(made, self.name, phase, symbols_of_module(made))
            module, args, kwargs = (*made, {})[:3] if isinstance(made, tuple) else (made, (), {})
            return fold(trace(module, args, kwargs, name=self.name, backward=phase == "train"))


@dataclass(frozen=True)
class ZooModel:
    """A preset of the zoo with overrides."""

    preset: Preset
    overrides: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The preset's name, with the overrides in brackets."""
        if not self.overrides:
            return self.preset.name
        return f"{self.preset.name}[{','.join(f'{k}={v}' for k, v in sorted(self.overrides.items()))}]"

    @property
    def phases(self) -> tuple[str, ...]:
        """The preset's phases."""
        return self.preset.phases

    @cached_property
    def identity(self) -> str:
        """The digest of the config and of the code that the captures depend on."""
        config = json.dumps({**self.preset.config, **self.overrides}, sort_keys=True, default=str)
        return _digest(self.preset.name, self.preset.class_name, config, _code_digest(self.preset.module))

    def capture(self, phase: str) -> Graph:
        """The cached or shipped capture, else a fresh one, which is then cached."""
        if phase not in self.phases:
            raise InputError(f"model '{self.name}' has no phase '{phase}'; it has: {', '.join(self.phases)}")
        key = self.capture_name(phase)
        graph = _read_capture(_shipped_captures().joinpath(key))
        if graph is not None:
            return graph
        cached = cache_folder() / "graphs" / key
        graph = _read_capture(cached)
        if graph is None:
            graph = self.trace(phase)
            write_capture(graph, cached)
        return graph

    def capture_name(self, phase: str) -> str:
        """The file of a capture, named by the content of what it depends on."""
        return f"{self.preset.name}-{phase}-{self.identity[:16]}.json.gz"

    def trace(self, phase: str) -> Graph:
        """A fresh capture."""
        _require_torch()
        import torch

        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with torch.device("meta"):
                module = self.preset.build(self.overrides)
            names = ("batch", "prompt") if self.preset.kind == "language" else ("batch",)
            return trace_module(module, self.name, phase, names)
        finally:
            torch.set_default_dtype(before)


def symbols_of_module(module: nn.Module) -> tuple[str, ...]:
    """The sizes that a module with ``example_inputs`` leaves free."""
    return ("batch", "prompt") if hasattr(module, "make_state") else ("batch",)


def trace_module(module: nn.Module, name: str, phase: str, symbols: tuple[str, ...]) -> Graph:
    """A folded graph of a module with ``example_inputs``, its ``symbols`` left free."""
    from hwsim.frontends.torch import trace_symbolic

    def inputs(**sizes: Any) -> dict[str, Any]:
        example: Callable[..., dict[str, Any]] = module.example_inputs  # type: ignore[assignment]
        return example(phase, sizes["batch"], sizes.get("prompt", 0))

    hints = {symbol: HINTS[symbol] for symbol in symbols}
    module.train(phase == "train")  # batch norms and dropout do other work in inference
    return fold(trace_symbolic(inputs, module, hints, name=name, backward=phase == "train"))


@cache
def _shipped_captures() -> Traversable:
    return files("hwsim.models").joinpath("captures")


def cache_folder() -> Path:
    """Where hwsim keeps what it can make again: $XDG_CACHE_HOME/hwsim, else ~/.cache/hwsim."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwsim"


def write_capture(graph: Graph, path: Path) -> None:
    """Store a capture whole or not at all; a cache that cannot be written is no reason to fail."""
    content = gzip.compress(json.dumps(dump_graph(graph), separators=(",", ":")).encode(), mtime=0)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_bytes(content)
        partial.replace(path)


def _read_capture(path: Traversable) -> Graph | None:
    try:
        return _stored_capture(path)  # type: ignore[arg-type]  # places in folders and archives have a hash
    except (OSError, ValueError, EOFError):
        return None


@lru_cache(maxsize=64)
def _stored_capture(path: Traversable) -> Graph:
    """What stands in ``path``, whose name is a digest of all that it depends on; failures are not kept."""
    return read_graph(json.loads(gzip.decompress(path.read_bytes())))


@cache
def _code_digest(module: str) -> str:
    """Of the source of ``module`` and of the tracer, and of all that they import from hwsim."""
    sources: dict[str, str] = {}
    for root in (module, *_TRACER):
        _sources(root, sources)
    return _digest(str(VERSION), *(sources[name] for name in sorted(sources)))


def _sources(module: str, known: dict[str, str]) -> None:
    """Add the source text of ``module`` and of every module of hwsim that it names, but for those of mere words;
    nothing is imported."""
    package, _, name = module.rpartition(".")
    home, *folders = package.split(".")
    file = files(home).joinpath(*folders, f"{name}.py")
    if module not in known and module not in _WORDS and file.is_file():
        known[module] = file.read_text("utf-8")
        for named in _MODULE.findall(known[module]):
            _sources(named, known)


def _digest(*parts: str) -> str:
    return sha256("\0".join(parts).encode()).hexdigest()


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise InputError("capturing a model needs torch: pip install 'hwsim[torch]'") from None
