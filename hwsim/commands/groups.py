"""Groups of options: a command takes a dataclass, and users give its fields one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

Command = Callable[..., None]


def grouped(command: Command) -> Command:
    """``command`` with an option for each field of every parameter that is a dataclass, in its place.

    Fields are declared as options of a command are: a type annotated with `typer.Option`, and a default.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, type] = {}
    parameters: list[Parameter] = []
    for one in signature(command).parameters.values():
        kind = hints[one.name]
        if is_dataclass(kind) and isinstance(kind, type):
            groups[one.name] = kind
            inner = get_type_hints(kind, include_extras=True)
            parameters += [_option(field, inner[field.name]) for field in fields(kind)]
        else:
            parameters.append(one.replace(annotation=kind, kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def called(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    called.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters}
    return called


def _option(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
