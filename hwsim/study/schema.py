"""The study file: what is asked, of which models, on which systems. Checked whole, every problem with its place."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from hwsim.calibration import Calibration
from hwsim.card import CardFile
from hwsim.device import card_names, is_file
from hwsim.errors import InputError, Problem, lookup, shown
from hwsim.precision import PRECISIONS
from hwsim.registry import plugins
from hwsim.simulation import MAPPERS, choose_mapper
from hwsim.systemfile import ROLES, SystemFile, shipped_systems
from hwsim.units import parse_count
from hwsim.workload import MAX_SIZE, PHASES
from hwsim.zoo import presets

Section: TypeAlias = Literal["summary", "roofline", "memory-wall", "breakdown", "timeline", "pareto", "provenance"]
SECTIONS: tuple[Section, ...] = (
    "summary",
    "roofline",
    "memory-wall",
    "breakdown",
    "timeline",
    "pareto",
    "provenance",
)


def _count(value: str | int) -> int:
    count = parse_count(value)
    if not 1 <= count <= MAX_SIZE:
        raise InputError(Problem(got=shown(value), expected=f"a whole number from 1 to {MAX_SIZE}"))
    return count


def _named(kind: str, known: Callable[[], Sequence[str]]) -> AfterValidator:
    """Refuses names that nothing bears, with the nearest one that something does."""

    def check(name: str) -> str:
        lookup(kind, name, dict.fromkeys(known()))
        return name

    return AfterValidator(check)


def _study_name(name: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(Problem(got=shown(name), expected="letters, digits, '.', '_' and '-': it names a folder"))
    return name


def _model_name(name: str) -> str:
    if not name.endswith(".onnx") and ":" not in name:
        lookup("model", name, presets())
    return name


def _card_name(name: str) -> str:
    if not is_file(name):
        lookup("device", name, dict.fromkeys(card_names()))
    return name


def _hardware_name(name: str) -> str:
    if not is_file(name):
        lookup("device", name, dict.fromkeys((*card_names(), *shipped_systems())))
    return name


def _model_form(given: object) -> str:
    if isinstance(given, str):
        return "name"
    return "file" if isinstance(given, OnnxFile) or (isinstance(given, dict) and "onnx" in given) else "settings"


def _system_form(given: object) -> str:
    if isinstance(given, dict) and "card" not in given:
        return "devices"
    return _device_form(given) if not isinstance(given, SystemDevices) else "devices"


def _device_form(given: object) -> str:
    return "name" if isinstance(given, str) else "changes"


def _devices_form(given: object) -> str:
    return "list" if isinstance(given, list) else "one"


def _mapper_form(given: object) -> str:
    return "name" if isinstance(given, str) else "settings"


def _list_form(given: object) -> str:
    return "list" if isinstance(given, list) else "one"


Count: TypeAlias = Annotated[str | int, AfterValidator(_count)]
Phase: TypeAlias = Annotated[str, _named("phase", lambda: PHASES), Field(json_schema_extra={"enum": list(PHASES)})]
Precision: TypeAlias = Annotated[
    str, _named("dtype", lambda: PRECISIONS), Field(json_schema_extra={"enum": list(PRECISIONS)})
]
MapperName: TypeAlias = Annotated[str, _named("mapper", lambda: tuple(plugins(MAPPERS)))]
ModelName: TypeAlias = Annotated[str, AfterValidator(_model_name)]
CardName: TypeAlias = Annotated[str, AfterValidator(_card_name)]
HardwareName: TypeAlias = Annotated[str, AfterValidator(_hardware_name)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSettings(BaseModel):
    """A model of the zoo with settings of its config changed: `{name: llama-3.1-8b, layers: 16}`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: ModelName


class OnnxFile(_Strict):
    """An ONNX file with its symbolic sizes: `{onnx: net.onnx, dims: {batch: 8}}`."""

    onnx: str
    dims: dict[str, Count] = Field(default_factory=dict)


class MapperSettings(BaseModel):
    """A mapper with options, as `hwsim show` lists them: `{name: tiered, spill: true}`."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: MapperName

    @model_validator(mode="after")
    def _options(self) -> MapperSettings:
        given = self.model_extra or {}
        try:
            choose_mapper(self.name, given)
        except InputError as error:
            raise ValidationError.from_exception_data(self.name, _option_errors(error, given)) from None
        return self

    @model_serializer
    def _whole(self) -> dict[str, Any]:
        """As it was given: an option may be null, which other parts of a record leave out."""
        return {"name": self.name, **(self.model_extra or {})}


def _option_errors(error: InputError, given: Mapping[str, object]) -> list[InitErrorDetails]:
    """The problems of options, each at the option's place in the file."""
    return [
        InitErrorDetails(
            type=PydanticCustomError("option", "{error}", {"error": InputError(problem)}),
            loc=(problem.path,) if problem.path else (),
            input=given.get(problem.path),
        )
        for problem in error.problems
    ]


class DeviceChanges(_Strict):
    """A card with figures changed: `{card: inst-csd, set: {memories.nand.latency: 70 us}}`."""

    card: CardName
    set: dict[str, str | float] = Field(default_factory=dict)


class SystemChanges(DeviceChanges):
    """The same under a label: `{card: nvidia-h200, set: {memories.hbm.bandwidth: 6 TB/s}, label: faster}`."""

    label: str | None = None


DeviceEntry: TypeAlias = Annotated[
    Annotated[CardName, Tag("name")] | Annotated[DeviceChanges, Tag("changes")], Discriminator(_device_form)
]
DeviceEntries: TypeAlias = Annotated[
    Annotated[DeviceEntry, Tag("one")] | Annotated[list[DeviceEntry], Tag("list"), Field(min_length=1)],
    Discriminator(_devices_form),
]


class SystemDevices(BaseModel):
    """Devices behind one host, the main one first: `{gpu: nvidia-a6000, storage: [inst-csd, inst-csd]}`."""

    # Fields would lose their order, of which the first is the main device.
    model_config = ConfigDict(
        extra="allow", frozen=True, json_schema_extra={"propertyNames": {"enum": ["label", *ROLES]}}
    )
    __pydantic_extra__: dict[str, DeviceEntries]
    label: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        unknown = [key for key in given if key not in ("label", *ROLES)] if isinstance(given, dict) else []
        if unknown:
            wrong = [InitErrorDetails(type="extra_forbidden", loc=(key,), input=given[key]) for key in unknown]
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return given

    @model_validator(mode="after")
    def _some(self) -> SystemDevices:
        if not self.__pydantic_extra__:
            raise ValueError("a system names a card or its devices, such as {gpu: nvidia-a6000, storage: [inst-csd]}")
        return self


ModelEntry: TypeAlias = Annotated[
    Annotated[ModelName, Tag("name")] | Annotated[ModelSettings, Tag("settings")] | Annotated[OnnxFile, Tag("file")],
    Discriminator(_model_form),
]
SystemEntry: TypeAlias = Annotated[
    Annotated[HardwareName, Tag("name")]
    | Annotated[SystemChanges, Tag("changes")]
    | Annotated[SystemDevices, Tag("devices")],
    Discriminator(_system_form),
]
MapperEntry: TypeAlias = Annotated[
    Annotated[MapperName, Tag("name")] | Annotated[MapperSettings, Tag("settings")], Discriminator(_mapper_form)
]
Phases: TypeAlias = Annotated[
    Annotated[Phase, Tag("one")] | Annotated[list[Phase], Tag("list"), Field(min_length=1)], Discriminator(_list_form)
]


class WorkloadFile(_Strict):
    """What every case asks unless the matrix or an explicit case says otherwise.

    Without a phase a model is asked for decode if it has it, else for forward.
    """

    phase: Phases | None = None
    batch: Count = 1
    prompt: Count = 2048
    generate: Count = 128
    dtype: Precision = "bf16"


class MatrixFile(_Strict):
    """Values to try in every combination."""

    phase: list[Phase] | None = Field(None, min_length=1)
    batch: list[Count] | None = Field(None, min_length=1)
    prompt: list[Count] | None = Field(None, min_length=1)
    generate: list[Count] | None = Field(None, min_length=1)
    dtype: list[Precision] | None = Field(None, min_length=1)
    mapper: list[MapperEntry] | None = Field(None, min_length=1)


class CaseFile(_Strict):
    """One case more; without a model or system it is asked of all of them."""

    model: ModelEntry | None = None
    system: SystemEntry | None = None
    phase: Phase | None = None
    batch: Count | None = None
    prompt: Count | None = None
    generate: Count | None = None
    dtype: Precision | None = None
    mapper: MapperEntry | None = None


class StudyFile(_Strict):
    """The YAML form of a study; `hwsim schema study` prints its JSON Schema."""

    study: Annotated[str, AfterValidator(_study_name)]
    title: str = ""
    models: list[ModelEntry] = Field(min_length=1)
    systems: list[SystemEntry] = Field(min_length=1)
    workload: WorkloadFile = WorkloadFile()
    matrix: MatrixFile = Field(default_factory=lambda: MatrixFile.model_validate({}))
    cases: list[CaseFile] = Field(default_factory=list)
    mapper: MapperEntry = "auto"
    spill: bool = False
    report: list[Section] = Field(default_factory=lambda: list(SECTIONS))
    baseline: str | None = None


def json_schema(model: type[BaseModel], title: str) -> dict[str, Any]:
    """The JSON Schema (draft 7) of a file's model, for editors."""
    schema = model.model_json_schema()
    return {"$schema": "http://json-schema.org/draft-07/schema#", **schema, "title": title}


def study_schema() -> dict[str, Any]:
    """The JSON Schema of a study file."""
    return json_schema(StudyFile, "hwsim study")


def card_schema() -> dict[str, Any]:
    """The JSON Schema of a hardware card."""
    return json_schema(CardFile, "hwsim card")


def system_schema() -> dict[str, Any]:
    """The JSON Schema of a system of devices."""
    return json_schema(SystemFile, "hwsim system")


def calibration_schema() -> dict[str, Any]:
    """The JSON Schema of a calibration."""
    return json_schema(Calibration, "hwsim calibration")
