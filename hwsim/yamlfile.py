"""Safe YAML files with places: every complaint about a file can say file, line and column.

The loader reads YAML 1.2 core scalars (`1e9` is a number, `no` and `12:30:00` are texts). It refuses
duplicate keys, tags and cyclic aliases and bounds size, depth and the expansion of aliases, so that a hostile
file costs no more than a large one. `validate` turns the errors of a pydantic model into placed problems.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hwsim.errors import InputError, Problem, dotted, nearest_name, shown

MAX_BYTES = 8 * 2**20
MAX_DEPTH = 100
MAX_NODES = 500_000  # after aliases are expanded

Key = str | int
Place = tuple[Key, ...]
Data = None | bool | int | float | str | list["Data"] | dict[Key, "Data"]
Model = TypeVar("Model", bound=BaseModel)

_TAG = "tag:yaml.org,2002:"
_CORE = {
    "null": re.compile(r"~|null|Null|NULL|"),
    "bool": re.compile(r"true|True|TRUE|false|False|FALSE"),
    "int": re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
_STARTS = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_ENDS = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


@dataclass(frozen=True, slots=True)
class Marks:
    """Where each value of a file stands, by its path of keys and indices."""

    values: dict[Place, tuple[int, int]] = field(default_factory=dict)
    keys: dict[Place, tuple[int, int]] = field(default_factory=dict)

    def where(self, path: Place, *, key: bool = False) -> tuple[int, int]:
        """Line and column, from 1, of the value at `path` (or of its key), else of its closest ancestor."""
        if key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, (1, 1))


class _CoreLoader(yaml.CSafeLoader):
    """Composes nodes whose plain scalars carry the tags of the YAML 1.2 core schema."""

    def resolve(self, kind: type[yaml.Node], value: str | None, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            plain = implicit[0] and value is not None
            names = (name for name, pattern in _CORE.items() if plain and pattern.fullmatch(value or ""))
            return _TAG + next(names, "str")
        return _TAG + ("map" if kind is yaml.MappingNode else "seq")


def load_yaml(source: Path | Traversable | str) -> tuple[Data, Marks]:
    """Read a file (a path) or a text (a str) and return its data with the place of everything in it."""
    name, text = ("<text>", source) if isinstance(source, str) else (str(source), _read(source))
    if len(text) > MAX_BYTES:
        raise InputError(Problem("file too large", file=name, expected=f"at most {MAX_BYTES} characters"))
    try:
        _check_depth(text, name)
        node = _CoreLoader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (None, None)
        message = ", ".join(part for part in (error.context, error.problem) if part)
        raise InputError(Problem(f"not YAML: {message}", name, *place)) from None
    except (yaml.YAMLError, UnicodeEncodeError) as error:
        raise InputError(Problem(f"not YAML: {' '.join(str(error).split())}", name)) from None
    if node is None:
        return None, Marks()
    builder = _Builder(name)
    data = builder.build(node, ())
    if builder.problems:
        raise InputError(*builder.problems)
    return data, builder.marks


def _read(source: Path | Traversable) -> str:
    """The text of a file; one that is missing, unreadable or not UTF-8 is an InputError."""
    try:
        with source.open("rb") as stream:
            return stream.read(MAX_BYTES + 1).decode("utf-8-sig")
    except FileNotFoundError:
        parent = source.parent if isinstance(source, Path) else None
        siblings = [path.name for path in parent.iterdir()] if parent and parent.is_dir() else []
        raise InputError(Problem("no such file", str(source), nearest=nearest_name(source.name, siblings))) from None
    except OSError as error:
        raise InputError(Problem(f"cannot be read: {error.strerror}", str(source))) from None
    except UnicodeDecodeError as error:
        raise InputError(Problem(f"not UTF-8 text at byte {error.start}", str(source))) from None


def _check_depth(text: str, name: str) -> None:
    """Refuse deep nesting from the flat event stream, before the recursive composer runs out of C stack.

    libyaml gives up by itself where it looks ahead into nesting that is far too deep; Python's parser is slower, but
    tells the place.
    """
    try:
        _walk_depth(yaml.parse(text, Loader=_CoreLoader), name)
    except yaml.MarkedYAMLError as error:
        if "nesting depth" not in str(error):
            raise
        _walk_depth(yaml.parse(text, Loader=yaml.SafeLoader), name)


def _walk_depth(events: Iterable[yaml.Event], name: str) -> None:
    depth = 0
    for event in events:
        depth += isinstance(event, _STARTS) - isinstance(event, _ENDS)
        if depth > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
            raise InputError(Problem(message, name, *_position(event)))


class _Builder:
    """Turns a node tree into plain data, gathering marks and problems."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.marks = Marks()
        self.problems: list[Problem] = []
        self.nodes = 0
        self.open: set[int] = set()

    def build(self, node: yaml.Node, path: Place) -> Data:
        """The data of one node, which stands at `path`."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            self.stop(node, path, f"more than {MAX_NODES} values once aliases are expanded")
        if id(node) in self.open:
            self.stop(node, path, "an alias that contains itself")
        self.marks.values[path] = _position(node)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            self.complain(node, path, f"tag '{node.tag}' is not allowed")
        self.open.add(id(node))
        data = (
            self.mapping(node, path)
            if isinstance(node, yaml.MappingNode)
            else [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        )
        self.open.discard(id(node))
        return data

    def mapping(self, node: yaml.MappingNode, path: Place) -> Data:
        data: dict[Key, Data] = {}
        for key_node, value_node in node.value:
            key = self.scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if isinstance(key, bool) or not isinstance(key, str | int):
                self.complain(key_node, path, "a key must be a text or a whole number")
                continue
            place = (*path, key)
            if key in data:
                first = self.marks.keys[place][0]
                self.complain(key_node, place, f"duplicate key, first given in line {first}")
                continue
            self.marks.keys[place] = _position(key_node)
            data[key] = self.build(value_node, place)
        return data

    def scalar(self, node: yaml.ScalarNode, path: Place) -> Data:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if tag == "str":
            return str(text)
        if tag not in _CORE or not _CORE[tag].fullmatch(text):
            self.complain(node, path, f"tag '{node.tag}' is not allowed")
            return None
        try:
            return _value(tag, text)
        except ValueError:
            self.complain(node, path, "number out of range", got=shown(text))
            return None

    def complain(self, node: yaml.Node, path: Place, message: str, got: str = "") -> None:
        self.problems.append(Problem(message, self.file, *_position(node), path=dotted(path), got=got))

    def stop(self, node: yaml.Node, path: Place, message: str) -> NoReturn:
        self.complain(node, path, message)
        raise InputError(*self.problems)


def _position(item: yaml.Node | yaml.Event) -> tuple[int, int]:
    """Line and column, from 1, where a node or event starts."""
    mark = item.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _value(tag: str, text: str) -> Data:
    """The value of a scalar of the core schema; a number beyond the range of its type is a ValueError."""
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    if math.isinf(number) and "inf" not in text.lower():
        raise ValueError(text)
    return number


def validate(model: type[Model], data: object, marks: Marks, file: str, error: type[InputError] = InputError) -> Model:
    """Build `model` from loaded data, or raise one `error` with all problems at their lines and columns."""
    try:
        return model.model_validate(data)
    except ValidationError as failure:
        problems = _problems(failure, model, data, marks, file)
    raise error(*problems)


def _problems(failure: ValidationError, model: type[BaseModel], data: object, marks: Marks, file: str) -> list[Problem]:
    """The problems of a failed validation in the order of the file, each place once."""
    schema = model.model_json_schema()
    located = [(_yaml_path(detail, data), detail) for detail in failure.errors(include_url=False)]
    paths = {path for path, _ in located}
    found: dict[Place, Problem] = {}
    for path, detail in located:
        # An error above another one comes from a branch of a union that the data was not meant for.
        if any(len(other) > len(path) and other[: len(path)] == path for other in paths):
            continue
        place = marks.where(path, key=detail["type"] == "extra_forbidden")
        spot = Problem("", file, *place, path=dotted(path))
        if detail["type"] == "extra_forbidden":
            problem = _unknown_key(spot, str(path[-1]), _keys_at(schema, path[:-1], data))
        else:
            problem = _wrong_value(spot, detail)
        found[path] = _merged(found[path], problem) if path in found else problem
    return sorted(found.values(), key=lambda problem: (problem.line or 0, problem.column or 0))


def _yaml_path(detail: ErrorDetails, data: object) -> Place:
    """pydantic's `loc` without the parts that are tags of a union rather than keys of the file."""
    path: list[Key] = []
    for part in detail["loc"]:
        in_list = isinstance(data, list) and isinstance(part, int)
        if in_list or (isinstance(data, Mapping) and part in data):
            data = data[part]  # type: ignore[index]
            path.append(part)
    if detail["type"] == "missing":
        path.append(detail["loc"][-1])
    elif detail["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path.append(detail["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _unknown_key(spot: Problem, key: str, known: set[str]) -> Problem:
    if key in known:  # of another branch of a union
        return replace(spot, message="does not go with the other keys here")
    nearest = nearest_name(key, known)
    expected = "" if nearest or not known else f"one of: {', '.join(sorted(known))}"
    return replace(spot, message="unknown key", expected=expected, nearest=nearest)


def _wrong_value(spot: Problem, detail: ErrorDetails) -> Problem:
    """The problem of one value, from what pydantic or a validator of ours said about it."""
    if detail["type"] in ("missing", "union_tag_not_found"):
        return replace(spot, message="missing key")
    context = detail.get("ctx", {})
    given = context.get("tag", detail["input"])
    got = shown(given)
    raised = context.get("error")
    if isinstance(raised, InputError) and len(raised.problems) == 1:
        ours = raised.problems[0]
        return replace(spot, message=ours.message, got=ours.got, expected=ours.expected, nearest=ours.nearest)
    if raised is not None:
        return replace(spot, message=str(raised), got=got)
    expected = context.get("expected") or context.get("expected_tags")
    if expected:
        nearest = nearest_name(str(given), re.findall(r"'([^']*)'", expected))
        return replace(spot, got=got, expected=expected, nearest=nearest)
    wanted = re.fullmatch(r"Input should be (.*?)(, unable to parse .*)?", detail["msg"])
    if wanted is None:
        return replace(spot, message=detail["msg"], got=got)
    expected = re.sub(r"a valid dictionary( or instance of \w+)?", "a mapping", wanted[1])
    return replace(spot, got=got, expected=expected.replace("a valid string", "a text"))


def _merged(first: Problem, second: Problem) -> Problem:
    """One problem for two branches of a union that refuse the same value."""
    expected = " or ".join(dict.fromkeys(filter(None, (first.expected, second.expected))))
    return replace(
        first,
        message=first.message or second.message,
        got=first.got or second.got,
        expected=expected,
        nearest=first.nearest or second.nearest,
    )


def _keys_at(schema: dict[str, Any], path: Place, data: object) -> set[str]:
    """The keys that a JSON schema allows in the mapping at `path` of the data."""
    candidates = list(_branches(schema, schema, data))
    for part in path:
        data = data[part] if isinstance(data, dict | list) else None  # type: ignore[index]
        below = [child for candidate in candidates for child in _children(candidate, part)]
        candidates = [branch for child in below for branch in _branches(child, schema, data)]
    return {
        key
        for candidate in candidates
        for key in (*candidate.get("properties", {}), *candidate.get("propertyNames", {}).get("enum", ()))
    }


def _children(schema: dict[str, Any], part: Key) -> Iterator[dict[str, Any]]:
    for child in (schema.get("properties", {}).get(part), schema.get("items")):
        if isinstance(child, dict):
            yield child
    extra = schema.get("additionalProperties")
    if isinstance(extra, dict) and part not in schema.get("properties", {}):
        yield extra


def _branches(schema: dict[str, Any], root: dict[str, Any], data: object) -> Iterator[dict[str, Any]]:
    """The plain schemas behind references and unions, without those whose constants the data contradicts."""
    if "$ref" in schema:
        yield from _branches(root["$defs"][schema["$ref"].rpartition("/")[2]], root, data)
    for word in ("anyOf", "oneOf", "allOf"):
        for branch in schema.get(word, []):
            yield from _branches(branch, root, data)
    constants = {k: v["const"] for k, v in schema.get("properties", {}).items() if "const" in v}
    given = data if isinstance(data, Mapping) else {}
    if all(given.get(key, constant) == constant for key, constant in constants.items()):
        yield schema
