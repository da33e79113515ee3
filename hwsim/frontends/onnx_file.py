"""An ONNX file opened without its weights, its functions written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

from google.protobuf.descriptor import FieldDescriptor  # type: ignore[import-untyped]
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import AttributeProto, FunctionProto, ModelProto, NodeProto, TensorProto, defs
from onnx.inliner import inline_selected_functions

from hwsim.errors import GraphError
from hwsim.frontends.onnx_node import FEW, RULES

_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def read(path: Path) -> ModelProto:
    """The model in ``path``. External weight files are not touched, large inline ones are dropped."""
    if path.is_dir():
        raise GraphError("is a directory; expected an ONNX file")
    try:
        model: ModelProto = ModelProto.FromString(path.read_bytes())
    except FileNotFoundError:
        raise GraphError("no such file") from None
    except OSError as error:
        raise GraphError(f"cannot be read: {error.strerror}") from None
    except DecodeError:
        raise GraphError("is no ONNX model, or a truncated one") from None
    if not model.opset_import or not (model.graph.node or model.graph.output):
        raise GraphError("is no ONNX model: it has no graph or names no operator set")
    for imported in model.opset_import:
        if not 1 <= imported.version < 2**31:
            raise GraphError(f"imports version {imported.version} of the operators '{imported.domain or 'ai.onnx'}'")
    for tensor in _tensors(model):
        if prod(tensor.dims) > FEW:
            for field in _DATA_FIELDS:
                tensor.ClearField(field)
    if not _is_readable(model):
        raise GraphError("is no ONNX model: it has names that are no text")
    return model


def _is_readable(message: Message) -> bool:
    """Whether all text is UTF-8: protobuf hands out bytes where it is not."""
    for field, value in message.ListFields():
        if field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_MESSAGE):
            continue
        for single in (value,) if isinstance(value, str | bytes | Message) else value:
            if isinstance(single, bytes) or (isinstance(single, Message) and not _is_readable(single)):
                return False
    return True


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Initialisers and the tensors of Constant nodes."""
    yield from model.graph.initializer
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t


def expanded(model: ModelProto) -> ModelProto:
    """``model`` with its functions, and standard operators that are functions, inlined where there is no rule."""
    _check_acyclic(model.functions)
    local = [(function.domain, function.name) for function in model.functions]
    wanted = [(domain, name) for domain, name in local if _key(domain, name) not in RULES]
    if wanted:
        try:
            model = inline_selected_functions(model, wanted)
        except Exception as error:  # the inliner is compiled code that throws whatever it likes
            raise GraphError(f"its functions cannot be inlined: {str(error).splitlines()[0]}") from None
    standard = {_state_defaults(node, schema): None for node, schema in _standard_functions(model)}
    if standard:
        try:
            model = inline_selected_functions(model, list(standard), inline_schema_functions=True)
        except Exception:  # the nodes stay whole, and are listed as unmodelled
            return model
    return model


def _key(domain: str, name: str) -> str:
    return name if domain in ("", "ai.onnx") else f"{domain}::{name}"


def _state_defaults(node: NodeProto, schema: defs.OpSchema) -> tuple[str, str]:
    """Write out the attributes that a node leaves at their defaults, which the inliner would lose."""
    stated = {attribute.name for attribute in node.attribute}
    missing = (attribute for attribute in schema.attributes.values() if attribute.name not in stated)
    node.attribute.extend(attribute.default_value for attribute in missing if attribute.default_value.name)
    return schema.domain, schema.name


def _standard_functions(model: ModelProto) -> Iterator[tuple[NodeProto, defs.OpSchema]]:
    """Nodes in ``model`` that the standard defines by a function body and that have no rule here."""
    versions = {imported.domain: imported.version for imported in model.opset_import}
    for node in model.graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if _key(domain, node.op_type) in RULES or not defs.has(node.op_type, domain):
            continue
        try:
            schema = defs.get_schema(node.op_type, max_inclusive_version=versions.get(domain, 1), domain=domain)
        except defs.SchemaError:
            continue
        # onnx's own type stubs forget both properties.
        if schema.has_function or schema.has_context_dependent_function:  # type: ignore[attr-defined]
            yield node, schema


def _check_acyclic(functions: Iterable[FunctionProto]) -> None:
    """A function that reaches itself would be inlined for ever."""
    calls = {
        (function.domain, function.name): [(n.domain, n.op_type) for n in _nodes(function.node)]
        for function in functions
    }
    done: set[tuple[str, str]] = set()
    while ready := [
        name for name, called in calls.items() if name not in done and all(c in done or c not in calls for c in called)
    ]:
        done.update(ready)
    stuck = [name for _, name in calls if (_, name) not in done]
    if stuck:
        raise GraphError(f"function '{stuck[0]}' calls itself")


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """Nodes, those of subgraphs included."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _nodes(attribute.g.node)
            for graph in attribute.graphs:
                yield from _nodes(graph.node)
