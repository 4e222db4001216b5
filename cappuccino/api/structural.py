"""From pydantic's JSON Schema to the structural schema that a CustomResourceDefinition takes.

A whitelist: a keyword that is not known here is refused, so that a model cannot silently lose a check on its way
into the cluster. References are inlined, titles dropped, `X | None` becomes an absent field, `const` an enum, and
an exclusive bound the bound plus a boolean (the older JSON Schema draft that Kubernetes speaks). Tuples of fixed
shape, sets and unions have no structural form. Source: the Kubernetes documentation, "Specifying a structural schema".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from cappuccino.core.errors import InvariantViolation

Schema = dict[str, Any]

# fmt: off
_COPIED = frozenset((
    "type", "format", "description", "enum", "pattern", "default", "required", "minLength", "maxLength", "minItems", "maxItems",
    "minProperties", "maxProperties", "minimum", "maximum", "multipleOf", "x-kubernetes-validations",
))
_CONVERTED = frozenset((
    "title", "$defs", "const", "exclusiveMinimum", "exclusiveMaximum", "items", "properties", "additionalProperties",
))
# fmt: on


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of `model` in its wire form (camelCase).

    Raises:
        InvariantViolation: the model uses something that has no structural form.
    """
    document = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(document, document.get("$defs", {}), model.__name__)


def _convert(source: Schema, definitions: Schema, where: str) -> Schema:
    if "$ref" in source:
        target = definitions[source["$ref"].rsplit("/", 1)[1]]
        return _convert({**target, **{k: v for k, v in source.items() if k != "$ref"}}, definitions, where)
    if "anyOf" in source:
        options = [option for option in source["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise InvariantViolation(f"{where}: a union has no structural form")
        rest = {k: v for k, v in source.items() if k not in ("anyOf", "default") or (k == "default" and v is not None)}
        return _convert({**options[0], **rest}, definitions, where)
    unknown = set(source) - _COPIED - _CONVERTED
    if unknown or ("type" not in source and "const" not in source and "enum" not in source):
        raise InvariantViolation(f"{where}: no structural form for {', '.join(sorted(unknown)) or 'a schema without a type'}")
    result = {key: value for key, value in source.items() if key in _COPIED}
    if "default" in source:
        result["default"] = _present(source["default"])
    if "const" in source:
        result["enum"] = [source["const"]]
    for bound, plain in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if bound in source:
            result[plain], result[bound] = source[bound], True
    if "items" in source:
        result["items"] = _convert(source["items"], definitions, f"{where}[]")
    if "properties" in source:
        result["properties"] = {k: _convert(v, definitions, f"{where}.{k}") for k, v in source["properties"].items()}
    elif isinstance(source.get("additionalProperties"), dict):
        result["additionalProperties"] = _convert(source["additionalProperties"], definitions, f"{where}{{}}")
    return result


def _present(value: Any) -> Any:
    """A default without what is null in it: absent."""
    return {key: _present(inner) for key, inner in value.items() if inner is not None} if isinstance(value, dict) else value


def strict(schema: Schema) -> Schema:
    """`schema` with unknown fields refused: what kubectl's strict field validation sees."""
    result = dict(schema)
    if "items" in schema:
        result["items"] = strict(schema["items"])
    if "properties" in schema:
        result["properties"] = {key: strict(value) for key, value in schema["properties"].items()}
        result["additionalProperties"] = False
    elif "additionalProperties" in schema:
        result["additionalProperties"] = strict(schema["additionalProperties"])
    return result


def at(schema: Schema, path: Sequence[str | int]) -> Schema | None:
    """The part of `schema` that describes the value at `path`, or None when there is none."""
    for step in path:
        inner = (
            schema.get("items")
            if isinstance(step, int)
            else schema.get("properties", {}).get(step, schema.get("additionalProperties"))
        )
        if not isinstance(inner, dict):
            return None
        schema = inner
    return schema


def fields(schema: Schema, prefix: str = "") -> Iterator[tuple[str, Schema, bool]]:
    """(path, schema, required) of every field, depth first, in the order of the model; `[]` and `{}` mark lists and maps."""
    for name, inner in schema.get("properties", {}).items():
        path = f"{prefix}.{name}" if prefix else name
        yield path, inner, name in schema.get("required", ())
        yield from fields(inner, path)
        if "items" in inner:
            yield from fields(inner["items"], f"{path}[]")
        if "additionalProperties" in inner:
            yield from fields(inner["additionalProperties"], f"{path}{{}}")
