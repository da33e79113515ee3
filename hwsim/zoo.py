"""The zoo: named presets of the models that ship with hwsim or a plug-in, known without importing torch.

A zoo module ``X.py`` has a config dataclass and a `torch.nn.Module`; ``X.yaml`` beside it holds the presets as data.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field

from hwsim.errors import InputError, PluginError, Problem, lookup, nearest_name, shown
from hwsim.registry import plugins
from hwsim.yamlfile import load_yaml, validate

if TYPE_CHECKING:
    from torch import nn

GROUP = "hwsim.models"
LANGUAGE_PHASES = ("prefill", "decode", "generate", "train", "forward")
VISION_PHASES = ("forward", "train")


@dataclass(frozen=True)
class Preset:
    """A model of the zoo: a config for a class, and where its figures come from.

    ``kind`` is language or vision. ``parameters`` is the expected count at this config (None: not stated).
    """

    name: str
    title: str
    kind: str
    module: str
    class_name: str
    config_name: str
    config: Mapping[str, Any]
    parameters: int | None
    source: str
    mark: str
    note: str
    file: Traversable

    @property
    def phases(self) -> tuple[str, ...]:
        """What one may ask of the model."""
        return LANGUAGE_PHASES if self.kind == "language" else VISION_PHASES

    def build(self, overrides: Mapping[str, Any]) -> nn.Module:
        """The module with its config changed by ``overrides``, on torch's default device and dtype."""
        room = import_module(self.module)
        config_class = getattr(room, self.config_name)
        self._check(overrides, {field.name for field in fields(config_class)})
        try:
            config = config_class(**{**self.config, **overrides})
            return cast("nn.Module", getattr(room, self.class_name)(config))
        except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
            raise InputError(f"model '{self.name}' cannot be built with {dict(overrides)}: {error}") from None

    def _check(self, overrides: Mapping[str, Any], known: set[str]) -> None:
        problems = []
        for key, value in overrides.items():
            default = self.config.get(key)
            if key not in known:
                nearest = nearest_name(key, known)
                expected = "" if nearest else ", ".join(sorted(known))
                message = f"model '{self.name}' has no setting '{key}'"
                problems.append(Problem(message, nearest=nearest, expected=expected))
            elif isinstance(value, int) and not isinstance(value, bool) and value < 0:
                problems.append(Problem(f"model '{self.name}'", path=key, got=shown(value), expected="a positive size"))
            elif default is not None and isinstance(default, bool) != isinstance(value, bool):
                problems.append(
                    Problem(f"model '{self.name}'", path=key, got=shown(value), expected=type(default).__name__)
                )
        if problems:
            raise InputError(*problems)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _PresetFile(_Strict):
    config: dict[str, Any] = Field(default_factory=dict)
    parameters: int | None = None
    source: str
    mark: Literal["published", "derived", "assumed"]
    note: str = ""


class _ZooFile(_Strict):
    title: str
    class_name: str = Field(alias="class")
    config: str
    kind: Literal["language", "vision"]
    sources: dict[str, str]
    presets: dict[str, _PresetFile]


@cache
def presets() -> Mapping[str, Preset]:
    """Every preset by name."""
    found: dict[str, Preset] = {}
    for entry in plugins(GROUP).values():
        for preset in _read_presets(entry.value):
            if preset.name in found:
                raise PluginError(f"two models are called '{preset.name}': {found[preset.name].file}, {preset.file}")
            found[preset.name] = preset
    return dict(sorted(found.items()))


def find_preset(name: str) -> Preset:
    """The preset called ``name``; `UnknownNameError` with the nearest names."""
    return lookup("model", name, presets())


def _read_presets(module: str) -> list[Preset]:
    package, _, stem = module.rpartition(".")
    file = files(package).joinpath(f"{stem}.yaml")
    data, marks = load_yaml(file)
    zoo = validate(_ZooFile, data, marks, str(file))
    return [
        Preset(
            name,
            zoo.title,
            zoo.kind,
            module,
            zoo.class_name,
            zoo.config,
            preset.config,
            preset.parameters,
            zoo.sources.get(preset.source, preset.source),
            preset.mark,
            preset.note,
            file,
        )
        for name, preset in zoo.presets.items()
    ]
