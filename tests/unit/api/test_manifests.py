from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappuccino.api import manifests
from cappuccino.core.errors import InvalidInput

DATASET = """
apiVersion: cappuccino.dev/v1alpha1
kind: Dataset
metadata: {name: d}
spec:
  symbols: [BTC/USD]
  start: 2024-01-01T00:00:00Z
  source: {generator: {seed: 1, volatility: 1e-3}}
"""


def documents(text: str) -> list[dict[str, object]]:
    return [document for document, _ in manifests.read(text, source="m.yaml")]


def test_a_bare_time_stays_text_and_an_exponent_is_a_number() -> None:
    (document,) = documents(DATASET)
    assert document["spec"]["start"] == "2024-01-01T00:00:00Z"
    assert document["spec"]["source"]["generator"]["volatility"] == 0.001
    assert manifests.check(document).spec.source.generator.volatility == 0.001


@given(st.floats(min_value=1e-12, max_value=1e12))
def test_every_positive_number_that_json_writes_is_read_as_that_number(value: float) -> None:
    (document,) = documents(f"value: {value!r}")
    assert document["value"] == value


def test_documents_are_separated_and_empty_ones_left_out() -> None:
    found = manifests.read(f"---\n{DATASET}---\n# nothing\n---\n{DATASET}", source="m.yaml")
    assert len(found) == 2
    assert [where.partition(":")[2].isdigit() for _, where in found] == [True, True]


def test_a_list_is_unfolded() -> None:
    found = manifests.read(
        '{"apiVersion": "v1", "kind": "List", "items": [{"kind": "Study"}, {"kind": "Trial"}]}', source="l.json"
    )
    assert [(document["kind"], where) for document, where in found] == [
        ("Study", "l.json: items[0]"),
        ("Trial", "l.json: items[1]"),
    ]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2", "m.yaml:2:1: not valid YAML: key 'a' stands twice"),
        ("a: [1", "m.yaml:1:6: not valid YAML"),
        ("- 1", "m.yaml: a manifest is a mapping"),
        ("1: a", "key 1 is not text"),
        ("a: \x07", "m.yaml: not valid YAML"),
        ("a: *b", "not valid YAML"),
    ],
)
def test_what_is_not_yaml_is_refused_with_its_place(text: str, says: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        documents(text)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_every_defect_of_a_manifest_is_named_in_one_line() -> None:
    (document,) = documents(DATASET.replace("[BTC/USD]", "[]").replace("seed: 1", "sed: 1"))
    with pytest.raises(InvalidInput) as refusal:
        manifests.parse(document, source="m.yaml")
    assert "spec.symbols: has 0 entries, needs at least 1" in str(refusal.value)
    assert "spec.source.generator.sed: unknown field; did you mean seed?" in str(refusal.value)
    assert "spec.source.generator.seed: required and absent" in str(refusal.value)


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_that_are_none_are_refused(value: str) -> None:
    (document,) = documents(DATASET.replace("1e-3", value))
    with pytest.raises(InvalidInput, match=r"spec\.source\.generator\.volatility: should be a finite number"):
        manifests.parse(document)


def test_a_folder_gives_its_manifests_by_name_and_says_when_it_has_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no manifests"):
        manifests.load(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text(DATASET)
    (tmp_path / "a.yml").write_text(DATASET)
    (tmp_path / "notes.txt").write_text("no")
    assert [where for _, where in manifests.load(tmp_path)] == [str(tmp_path / "a.yml"), str(tmp_path / "sub" / "b.yaml")]
    with pytest.raises(InvalidInput, match="no such file or folder"):
        manifests.load(tmp_path / "absent.yaml")


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(InvalidInput, match="byte 3 is not UTF-8"):
        manifests.load(tmp_path / "a.yaml")
