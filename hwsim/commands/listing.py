"""`hwsim list`, `hwsim show` and `hwsim schema`: what there is to choose from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol

import typer

from hwsim.commands import options
from hwsim.commands.output import print_columns, print_json, print_table, say, shown
from hwsim.errors import HwsimError, UnknownNameError

if TYPE_CHECKING:
    from hwsim.card import Card
    from hwsim.device import Outline
    from hwsim.system import System
    from hwsim.zoo import Preset

Rows = list[dict[str, Any]]
DEVICE_COLUMNS = (
    "name",
    "title",
    "family",
    "memory",
    "capacity_bytes",
    "bandwidth_bytes_per_s",
    "peak_flops_per_s",
    "dtype",
    "form",
)


class Parts(Protocol):
    """What the room of devices says of drives, or of DRAMs."""

    def cards(self) -> Rows: ...

    def show(self, name: str) -> dict[str, Any]: ...

    def schema(self) -> dict[str, Any]: ...


def list_names(
    what: Annotated[
        Literal["devices", "models", "systems", "drives", "mappers", "kernels", "studies", "claims"],
        typer.Argument(help="What to list."),
    ],
    json: options.Json = False,
) -> None:
    """List devices, models, systems, drives, mappers, kernels, studies or claims."""
    print_rows(_LISTS[what](), json)


def show(
    name: Annotated[str, typer.Argument(help="A device, a system, a path to either, a model, or a mapper.")],
    json: options.Json = False,
) -> None:
    """Show a card or a system with the source of every figure, a model with its sizes, or a mapper with its options."""
    from hwsim.commands.storage import harness as storage
    from hwsim.device import card_names, is_file, load_device, outline
    from hwsim.registry import plugins
    from hwsim.simulation import MAPPERS
    from hwsim.systemfile import is_system, load_system, shipped_systems
    from hwsim.zoo import presets

    models, mappers = presets(), plugins(MAPPERS)
    if name in models:
        _show_model(models[name], json)
    elif is_system(name):
        _show_system(load_system(name), json)
    elif (known := outline(name)) is not None:
        _show_outline(name, known, json)
    elif is_file(name) or name in card_names():
        _show_card(load_device(name).card, json)
    elif name in mappers:
        _show_mapper(name, json)
    elif name in (drives := storage().names()):
        print_part(storage().show(name), json)
    else:
        raise UnknownNameError(
            "device, system, model, mapper or drive",
            name,
            {*card_names(), *shipped_systems(), *models, *mappers, *drives},
        )


def print_schema(
    what: Annotated[
        Literal["study", "card", "system", "calibration", "drive", "dram"], typer.Argument(help="Which kind of file.")
    ],
) -> None:
    """Print the JSON Schema of a study, a card, a system, a calibration, a drive or a DRAM card, for editors."""
    from hwsim.commands.dram import harness as dram
    from hwsim.commands.storage import harness as storage
    from hwsim.study.schema import calibration_schema, card_schema, study_schema, system_schema

    schemas: dict[str, Callable[[], dict[str, Any]]] = {
        "study": study_schema,
        "card": card_schema,
        "system": system_schema,
        "calibration": calibration_schema,
        "drive": lambda: storage().schema(),
        "dram": lambda: dram().schema(),
    }
    print_json(schemas[what]())


def _devices() -> Rows:
    from hwsim.device import card_names, load_device, outline

    rows = []
    for name in card_names():
        if (known := outline(name)) is not None:
            row = dict.fromkeys(DEVICE_COLUMNS)
            rows.append({**row, "name": name, "title": known.title, "family": known.family, "form": known.note})
            continue
        try:
            rows.append(_device(name, load_device(name).card))
        except HwsimError as error:
            say(f"hwsim: {name} does not load: {error}")
    return rows


def _device(name: str, card: Card) -> dict[str, Any]:
    rates = card.matmul or card.vector
    usual = next((name for name in ("bf16", "fp16", "int8", "fp32") if name in rates), "")
    form = "peaks only" if card.first_form else "full"
    main = card.main
    figures = (main.name, main.capacity, main.bandwidth, rates.get(usual, 0.0), usual, form)
    return dict(zip(DEVICE_COLUMNS, (name, card.title, card.family, *figures), strict=True))


def _models() -> Rows:
    from hwsim.zoo import presets

    return [
        {
            "name": preset.name,
            "title": preset.title,
            "kind": preset.kind,
            "parameters": preset.parameters,
            "source": preset.source,
        }
        for preset in presets().values()
    ]


def _systems() -> Rows:
    from hwsim.systemfile import load_system, shipped_systems

    rows = []
    for name in shipped_systems():
        topology = load_system(name).topology
        devices = ", ".join(f"{device}={card.name}" for device, card in topology.cards.items())
        rows.append({"name": name, "title": topology.title, "devices": devices, "links": len(topology.wires)})
    return rows


def _drives() -> Rows:
    from hwsim.commands.storage import harness

    return harness().cards()


def _mappers() -> Rows:
    from hwsim.mapper_options import options_of
    from hwsim.registry import plugins
    from hwsim.simulation import MAPPERS, mapper_class

    rows = []
    for name, entry in plugins(MAPPERS).items():
        made = mapper_class(name)
        listed = ", ".join(f"{one.name}={one.written(one.default)}" for one in options_of(made))
        rows.append({"name": name, "what": _first_line(made), "options": listed, "from": _origin(entry)})
    return rows


def _kernels() -> Rows:
    from hwsim.kernel_ops import SPEC_OPS

    return [{"op": name, "fields": ", ".join(spec.fields)} for name, spec in SPEC_OPS.items()]


def _studies() -> Rows:
    from hwsim.registry import data_files
    from hwsim.yamlfile import load_yaml

    rows = []
    for file in data_files("hwsim.studies").values():
        data, _ = load_yaml(file)
        if isinstance(data, dict) and "study" in data:
            rows.append({"name": data["study"], "title": data.get("title", ""), "file": str(file)})
    return rows


def _claims() -> Rows:
    from hwsim.claims import read_claims

    return [
        {"id": name, "title": claim.title, "kind": claim.kind, "figures": len(claim.figures)}
        for name, claim in read_claims().items()
    ]


_LISTS: dict[str, Callable[[], Rows]] = {
    "devices": _devices,
    "models": _models,
    "systems": _systems,
    "drives": _drives,
    "mappers": _mappers,
    "kernels": _kernels,
    "studies": _studies,
    "claims": _claims,
}


def print_rows(rows: Rows, json: bool) -> None:
    """What there is to choose from."""
    if json:
        print_json(rows)
    else:
        print_columns(rows, list(rows[0]) if rows else ["name"])


def print_part(found: Mapping[str, Any], json: bool) -> None:
    """The card of a part of devices, a drive or a DRAM, with its figures."""
    if json:
        print_json(found)
    else:
        _print_figures(found["figures"], found["title"])


def _print_figures(rows: Rows, title: str) -> None:
    from hwsim.units import format_quantity

    cells = [
        [row["figure"], format_quantity(row["value"], row["unit"]), row["mark"], row["source"], row["note"]]
        for row in rows
    ]
    print_table(cells, ("figure", "value", "mark", "source", "note"), title)


def _show_card(card: Card, json: bool) -> None:
    from hwsim.figures import figure_rows

    rows = figure_rows(card.figures, card.sources)
    if json:
        print_json({"card": card.name, "title": card.title, "family": card.family, "figures": rows})
        return
    form = " (first form: peaks only)" if card.first_form else ""
    _print_figures(rows, f"{card.title}, family {card.family}{form}")


def _show_outline(name: str, known: Outline, json: bool) -> None:
    facts = {"card": name, "title": known.title, "family": known.family, "figures": [], "note": known.note}
    if json:
        print_json(facts)
        return
    print(f"{known.title}, family {known.family}")
    say(f"note: {known.note}")


def _show_system(system: System, json: bool) -> None:
    topology = system.topology
    devices = {name: card.name for name, card in topology.cards.items()}
    links = {wire.name: " - ".join(wire.ends) for wire in topology.wires}
    from hwsim.figures import figure_rows

    rows = figure_rows(topology.figures, topology.sources)
    if json:
        print_json({"system": system.name, "devices": devices, "links": links, "figures": rows})
        return
    devices[system.main_name] += ", the main device"
    print_table(
        [*devices.items(), *links.items()], ("device or link", "card, or what it joins"), topology.title or system.name
    )
    _print_figures(rows, "Links")


def _show_model(preset: Preset, json: bool) -> None:
    facts: dict[str, Any] = {
        "name": preset.name,
        "title": preset.title,
        "kind": preset.kind,
        "phases": ", ".join(preset.phases),
        "parameters": preset.parameters,
        "config": dict(preset.config),
        "source": preset.source,
        "mark": preset.mark,
        "note": preset.note,
    }
    if json:
        print_json(facts)
        return
    config = facts.pop("config")
    rows = [(name, shown(name, value)) for name, value in facts.items() if value not in ("", None)]
    print_table([*rows, *((f"config.{name}", shown(name, value)) for name, value in config.items())], ("", "value"))


def _show_mapper(name: str, json: bool) -> None:
    from hwsim.mapper_options import options_of
    from hwsim.simulation import mapper_class

    known, what = options_of(mapper_class(name)), _first_line(mapper_class(name))
    rows = [
        {"option": one.name, "default": one.written(one.default), "valid": one.valid, "what": one.doc} for one in known
    ]
    if json:
        print_json({"mapper": name, "what": what, "options": rows})
    elif rows:
        print_columns(rows, ("option", "default", "valid", "what"), f"{name}: {what}")
    else:
        print_table([("options", "none")], ("", "value"), f"{name}: {what}")


def _first_line(thing: object) -> str:
    return (getattr(thing, "__doc__", "") or "").strip().partition("\n")[0]


def _origin(entry: Any) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "unknown"
