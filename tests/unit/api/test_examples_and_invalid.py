"""Every example is accepted and every file of tests/contract/invalid refused, by the model and by the schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft4Validator

from cappuccino.api import KINDS, manifests
from cappuccino.api.crd import manifest_schema, schema_of
from cappuccino.core.clock import parse_iso, to_epoch
from cappuccino.core.errors import InvalidInput

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
INVALID = sorted((ROOT / "tests" / "contract" / "invalid").glob("*.yaml"))


def name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", EXAMPLES, ids=name)
def test_an_example_is_accepted_by_model_and_schema(path: Path) -> None:
    for document, where in manifests.load(path):
        resource = manifests.parse(document, source=where)
        assert list(Draft4Validator(manifest_schema(type(resource))).iter_errors(document)) == []


@pytest.mark.parametrize("path", INVALID, ids=name)
def test_an_invalid_manifest_is_refused_with_one_line_that_names_field_and_value(path: Path) -> None:
    text = path.read_text()
    field, says = (re.search(rf"^# {key}: (.+)$", text, re.M)[1] for key in ("field", "says"))
    (document, where), *_ = manifests.read(text, source=path.name)
    with pytest.raises(InvalidInput) as refusal:
        manifests.parse(document, source=where)
    message = str(refusal.value)
    assert message.startswith(f"{path.name}: {field}: ")
    assert says in message
    assert "\n" not in message


@pytest.mark.parametrize("path", [p for p in INVALID if "# seen by: schema" in p.read_text()], ids=name)
def test_the_schema_refuses_what_it_can_see(path: Path) -> None:
    (document, _), *_ = manifests.read(path.read_text(), source=path.name)
    kind = KINDS.get(document["kind"], KINDS["Dataset"])
    assert list(Draft4Validator(manifest_schema(kind)).iter_errors(document))


def test_there_are_enough_invalid_manifests_of_every_kind_and_each_says_who_sees_it() -> None:
    """What the server says is checked on a real one: tests/cluster/test_admission.py."""
    assert len(INVALID) >= 60
    texts = [path.read_text() for path in INVALID]
    assert set(KINDS) <= {re.search(r"^kind: (\w+)$", text, re.M)[1] for text in texts}
    assert all(re.search(r"^# seen by: (schema|format|cel)$", text, re.M) for text in texts)
    assert all(re.search(r"^# server says: .+$", text, re.M) for text in texts)


def rules(schema: dict[str, Any]) -> Iterator[dict[str, str]]:
    yield from schema.get("x-kubernetes-validations", ())
    for inner in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if isinstance(inner, dict):
            yield from rules(inner)


def said(rule: dict[str, str]) -> str:
    """Pattern of what the server says when `rule` does not hold."""
    if "message" in rule:
        return re.escape(rule["message"])
    form, _ = json.JSONDecoder().raw_decode(rule["messageExpression"])
    return re.escape(form).replace("%s", ".+")


def test_every_rule_has_a_manifest_that_breaks_it() -> None:
    told = "\n".join(re.search(r"^# server says: (.+)$", path.read_text(), re.M)[1] for path in INVALID)
    broken = {said(rule) for kind in KINDS.values() for rule in rules(schema_of(kind)) if "oldSelf" not in rule["rule"]}
    assert len(broken) > 15
    assert [pattern for pattern in broken if not re.search(pattern, told)] == []


def test_every_reference_of_an_example_names_an_example() -> None:
    resources = [manifests.parse(document, source=where) for path in EXAMPLES for document, where in manifests.load(path)]
    there = {(type(resource).__name__, resource.name) for resource in resources}
    for resource in resources:
        for field, kind in (("dataset_ref", "Dataset"), ("study_ref", "Study")):
            reference = getattr(resource.spec, field, None)
            assert reference is None or (kind, reference.name) in there, f"{resource.name} names {reference.name}"


def test_the_quickstart_has_room_for_warm_up_search_gap_and_gate() -> None:
    folder = ROOT / "examples" / "quickstart"
    dataset, study = (manifests.parse(*manifests.load(folder / f"{kind}.yaml")[0][:1]) for kind in ("dataset", "study"))
    bars = (to_epoch(parse_iso(dataset.spec.end)) - to_epoch(parse_iso(dataset.spec.start))) // 3600
    assert bars == 200 + 2400 + study.spec.validation.gap_bars + study.spec.validation.gate_bars
