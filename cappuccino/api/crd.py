"""The CustomResourceDefinitions: structural schemas with CEL rules, so that no webhook is needed.

A rule reads fields that have defaults without `has()`; optional ones need it. Its cost is estimated by the API server
from the bounds of what it reads, which is why every list, map and string of the models has one.
"""

from __future__ import annotations

from typing import Any

from cappuccino.api.changes import remedy
from cappuccino.api.meta import API_VERSION, GROUP, NAME_PATTERN, REMEDIES, VERSION, Resource, Rule, written
from cappuccino.api.structural import Schema, strict, structural


def crd(kind: type[Resource]) -> dict[str, Any]:
    """The CRD of `kind` as a document for `kubectl apply`."""
    info = kind.info
    subresources: dict[str, Any] = {"status": {}}
    if info.scale:
        subresources["scale"] = {"specReplicasPath": info.scale[0], "statusReplicasPath": info.scale[1]}
    columns = [(column, 0) for column in info.columns] + [(column, 1) for column in info.wide]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{info.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind.__name__,
                "listKind": f"{kind.__name__}List",
                "plural": info.plural,
                "singular": kind.__name__.lower(),
                "shortNames": list(info.short_names),
                "categories": ["cappuccino"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema_of(kind)},
                    "subresources": subresources,
                    "additionalPrinterColumns": [
                        {"name": name, "type": form, "jsonPath": path, "priority": priority}
                        for (name, form, path), priority in columns
                    ],
                }
            ],
        },
    }


def schema_of(kind: type[Resource]) -> Schema:
    """The schema of a whole object; metadata is Kubernetes' own, but that names are shorter and have no dots."""
    spec, status = part(kind, "spec"), part(kind, "status")
    if rules := [*kind.info.rules, *_unchanging(kind)]:
        spec["x-kubernetes-validations"] = [*spec.get("x-kubernetes-validations", ()), *written(rules)]
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    longest = kind.info.name_max
    names = [
        (
            f"self.metadata.name.size() <= {longest}",
            "metadata.name: {self.metadata.name} has {self.metadata.name.size()} characters, "
            f"at most {longest} fit: shorten it",
        ),
        ("!self.metadata.name.contains('.')", f"metadata.name: {{self.metadata.name}}: {REMEDIES[NAME_PATTERN]}"),
    ]
    return {
        "type": "object",
        "description": kind.info.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": f"{kind.__name__}."},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": written([*names, *_pinned(kind)]),
    }


def manifest_schema(kind: type[Resource]) -> Schema:
    """What a manifest must be before it is sent: JSON Schema draft 4, unknown fields refused, as kubectl does."""
    name = {"type": "string", "maxLength": kind.info.name_max, "pattern": NAME_PATTERN}
    return {
        "type": "object",
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"type": "string", "enum": [API_VERSION]},
            "kind": {"type": "string", "enum": [kind.__name__]},
            "metadata": {"type": "object", "required": ["name"], "properties": {"name": name}},
            "spec": strict(part(kind, "spec")),
            "status": strict(part(kind, "status")),
        },
        "additionalProperties": False,
    }


def part(kind: type[Resource], field: str) -> Schema:
    """The structural schema of `spec` or `status`."""
    annotation: Any = kind.model_fields[field].annotation
    model = annotation if isinstance(annotation, type) else annotation.__args__[0]
    return structural(model) | {"description": kind.model_fields[field].description}


def _unchanging(kind: type[Resource]) -> list[Rule]:
    info, name, always = kind.info, kind.__name__, _always(kind)
    if info.immutable == ("*",):
        return [("self == oldSelf", f"the spec of a {name} is immutable: {remedy(name)}")]
    objects = {field for field, schema in part(kind, "spec")["properties"].items() if schema.get("type") == "object"}
    return [
        *(
            (
                _same(f"self.{field}", f"oldSelf.{field}", field in always),
                f"{field} is immutable{_change(field) if field in always - objects else ''}: {remedy(name)}",
            )
            for field in info.immutable
        ),
        *(
            (
                f"self.{path} >= oldSelf.{path}",
                f"{path} may grow, not shrink (from {{oldSelf.{path}}} to {{self.{path}}})",
            )
            for path in info.growing
        ),
    ]


def _pinned(kind: type[Resource]) -> list[Rule]:
    """Rules at the root, where the status is in sight: what the first pass pinned no longer changes."""
    always = _always(kind)
    rules = []
    for field in kind.info.pinned:
        same = _same(f"self.spec.{field}", f"oldSelf.spec.{field}", field in always)
        rules.append(
            (
                f"!has(oldSelf.status) || !has(oldSelf.status.snapshot) || {same}",
                f"spec.{field} is immutable once the search has begun: {remedy(kind.__name__)}",
            )
        )
    return rules


def _always(kind: type[Resource]) -> set[str]:
    """Fields that every spec has, if only by their defaults: a rule reads them without has()."""
    spec = part(kind, "spec")
    return {*spec.get("required", ()), *(name for name, field in spec["properties"].items() if "default" in field)}


def _change(field: str) -> str:
    return f" (from {{oldSelf.{field}}} to {{self.{field}}})"


def _same(now: str, before: str, always: bool) -> str:
    same = f"{now} == {before}"
    return same if always else f"(has({now}) == has({before}) && (!has({now}) || {same}))"
