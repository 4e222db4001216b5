from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from pydantic import Field

from cappuccino.api import KINDS, Resource
from cappuccino.api.crd import crd, part
from cappuccino.api.meta import Model, written
from cappuccino.api.structural import at, fields, strict, structural
from cappuccino.core.errors import InvariantViolation

ALLOWED = {
    *("type", "format", "description", "enum", "pattern", "default", "required", "properties", "items", "additionalProperties"),
    *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "multipleOf"),
    *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
    *("x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys"),
}

kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


def schema_of(kind: type[Resource]) -> dict[str, Any]:
    return crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def every(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for inner in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(inner, dict):
            yield from every(inner)


@kinds
def test_the_schema_is_structural(kind: type[Resource]) -> None:
    for schema in every(schema_of(kind)):
        assert set(schema) <= ALLOWED
        assert schema["type"] in ("object", "array", "string", "integer", "number", "boolean")
        assert not ("properties" in schema and "additionalProperties" in schema)
        assert isinstance(schema.get("exclusiveMinimum", True), bool)


@kinds
def test_every_field_is_described(kind: type[Resource]) -> None:
    for name in ("spec", "status"):
        assert [path for path, field, _ in fields(part(kind, name)) if not field.get("description")] == []


@kinds
def test_everything_that_a_rule_could_read_is_bounded(kind: type[Resource]) -> None:
    for path, field, _ in fields(part(kind, "spec")):
        if field["type"] == "array":
            assert "maxItems" in field, path
        if "additionalProperties" in field:
            assert "maxProperties" in field, path
        if field["type"] == "string":
            assert "maxLength" in field or "enum" in field, path


@kinds
def test_every_default_is_valid_where_it_stands(kind: type[Resource]) -> None:
    from jsonschema import Draft4Validator

    for path, field, _ in fields(part(kind, "spec")):
        if "default" in field:
            assert list(Draft4Validator(strict(field)).iter_errors(field["default"])) == [], path


@kinds
def test_names_status_and_conditions_are_as_kubernetes_has_them(kind: type[Resource]) -> None:
    spec = crd(kind)["spec"]
    version = spec["versions"][0]
    conditions = schema_of(kind)["properties"]["status"]["properties"]["conditions"]
    assert spec["names"]["categories"] == ["cappuccino"]
    assert spec["names"]["shortNames"]
    assert version["subresources"]["status"] == {}
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]
    assert conditions["items"]["required"] == ["type", "status", "reason"]
    assert any(
        f"metadata.name.size() <= {kind.info.name_max}" in rule["rule"] for rule in schema_of(kind)["x-kubernetes-validations"]
    )
    assert [column["name"] for column in version["additionalPrinterColumns"] if not column["priority"]][-1] == "Age"


@kinds
def test_printer_columns_read_fields_that_exist(kind: type[Resource]) -> None:
    for column in crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = column["jsonPath"].split("[?")[0].strip(".").split(".")
        assert path[0] == "metadata" or at(schema_of(kind), path) is not None, column


def test_rules_that_read_optional_fields_ask_for_them_first() -> None:
    rules = {
        rule["rule"]
        for kind in KINDS.values()
        for schema in every(schema_of(kind))
        for rule in schema.get("x-kubernetes-validations", ())
    }
    assert "!has(self.url) || self.kind == 'simulated'" not in rules  # the rule stands on the template, with its venue
    assert "!has(self.venue.url) || self.venue.kind == 'simulated'" in rules
    assert "self == oldSelf" in rules
    assert "self.account == oldSelf.account" in rules
    assert "self.budget.trials >= oldSelf.budget.trials" in rules


def test_what_a_rule_says_carries_the_values_that_it_names() -> None:
    plain, told = written([("self.a > 0", "a is too low"), ("self.a > 0", 'a {self.a} of {size(self.b)} is "5 %" too low')])
    assert plain == {"rule": "self.a > 0", "message": "a is too low"}
    assert told["messageExpression"] == '"a %s of %s is \\"5 %%\\" too low".format([self.a, size(self.b)])'
    assert "message" not in told


def test_the_trader_template_carries_the_rules_of_a_trader() -> None:
    template = at(schema_of(KINDS["Deployment"]), ["spec", "traderTemplate"])
    trader = at(schema_of(KINDS["Trader"]), ["spec"])
    assert template is not None
    assert trader is not None
    shared = {rule["rule"] for rule in template["x-kubernetes-validations"]}
    assert len(shared) == 5
    assert shared < {rule["rule"] for rule in trader["x-kubernetes-validations"]}


def test_a_study_scales_by_its_parallelism() -> None:
    scale = crd(KINDS["Study"])["spec"]["versions"][0]["subresources"]["scale"]
    assert scale == {"specReplicasPath": ".spec.parallelism", "statusReplicasPath": ".status.active"}


def test_optional_const_and_exclusive_bounds_take_their_structural_form() -> None:
    class Inner(Model):
        """Inner."""

        share: float = Field(gt=0, lt=1, description="Share.")

    class Outer(Model):
        kind: Literal["one"] = Field(description="Kind.")
        inner: Inner | None = Field(default=None, description="Maybe.")
        by_name: dict[str, int] = Field(default={}, max_length=3, description="Map.")

    schema = structural(Outer)
    assert schema["required"] == ["kind"]
    assert schema["properties"]["kind"]["enum"] == ["one"]
    assert schema["properties"]["byName"]["additionalProperties"] == {"type": "integer"}
    assert "default" not in schema["properties"]["inner"]
    assert schema["properties"]["inner"]["properties"]["share"] == {
        "type": "number",
        "description": "Share.",
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
        "exclusiveMaximum": True,
    }


@pytest.mark.parametrize("annotation", [int | str, tuple[int, str], set[int], Any], ids=["union", "tuple", "set", "any"])
def test_what_has_no_structural_form_is_refused(annotation: Any) -> None:
    class Odd(Model):
        value: annotation = Field(description="Odd.")

    with pytest.raises(InvariantViolation, match="no structural form"):
        structural(Odd)
