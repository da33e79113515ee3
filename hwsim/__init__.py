"""hwsim: a hardware simulator and co-design toolkit for memory-centric AI.

The names below are the public interface. They are loaded on first use, so that `import hwsim` stays fast and
neither torch nor plotly is imported before something needs it.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["__version__", "estimate", "load_device", "load_onnx", "load_system", "run_study", "trace"]

_HOME = {
    "estimate": "hwsim.simulation",
    "load_device": "hwsim.device",
    "load_onnx": "hwsim.frontends.onnx",
    "load_system": "hwsim.systemfile",
    "run_study": "hwsim.study",
    "trace": "hwsim.frontends.torch",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'hwsim' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
