from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cappuccino.adapters.kubernetes.naming import labels, place
from cappuccino.adapters.kubernetes.settings import PodSettings
from cappuccino.controllers.decision import Key, Workload
from cappuccino.core.errors import InvalidInput

from .builders import SETTINGS


def written(folder: Path, **changes: object) -> Path:
    path = folder / "pods.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS.to_json(), **changes}))
    return path


def test_settings_are_read_from_yaml(tmp_path: Path) -> None:
    assert PodSettings.read(written(tmp_path)) == SETTINGS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": {"train": "x"}}, r"images\.trader: required and absent"),
        ({"colour": "red"}, r"colour: unknown field"),
        ({"deletionGraceSeconds": 0}, r"deletionGraceSeconds: .*\(got 0\)"),
        ({"imagePullPolicy": "Sometimes"}, r'imagePullPolicy: .*\(got "Sometimes"\)'),
        ({"programs": {"train": {"requests": {"cpu": "one"}}}}, r'requests\.cpu: .*500m.*\(got "one"\)'),
        ({"programs": {"trade": {"limits": {"cpu": 1}}}}, r"limits\.cpu: must be text"),
        ({"programs": {"dance": {}}}, "programs"),
        ({"artifacts": {"url": "file:///artifacts"}}, r"artifacts: url file:///artifacts needs a claim"),
        ({"artifacts": {"url": "ftp://x"}}, r'artifacts\.url: .*\(got "ftp://x"\)'),
        ({"environment": {"A": 1}}, r"environment\.A: must be text"),
    ],
)
def test_a_mistake_in_settings_names_file_field_and_value(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(InvalidInput, match=rf"{re.escape(str(path))}.*{message}"):
        PodSettings.read(path)


def test_settings_that_are_not_there_or_no_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"pods\.yaml.*No such file"):
        PodSettings.read(tmp_path / "pods.yaml")
    (tmp_path / "pods.yaml").write_text("a: [")
    with pytest.raises(InvalidInput, match=r"settings of pods"):
        PodSettings.read(tmp_path / "pods.yaml")


def of(key: Key, role: str = "", kind: str = "finite") -> Workload:
    return Workload(name=key.workload(role), kind=kind, arguments=("train",), keys=(key,))  # type: ignore[arg-type]


def test_a_job_is_called_as_its_trial_and_a_role_is_a_suffix() -> None:
    assert place(of(Key("Trial", "lab", "s-00001"))) == ("lab", "s-00001")
    assert place(of(Key("Dataset", "lab", "d"), "refresh")) == ("lab", "d-refresh")
    assert place(of(Key("Trader", "lab", "t"), kind="continuous")) == ("lab", "t")


def test_a_name_that_is_too_long_ends_in_a_digest_and_keeps_its_role() -> None:
    long, other = "x" * 62, "x" * 61 + "y"
    farewell = place(of(Key("Trader", "lab", long), "farewell")).name
    assert (len(farewell), farewell.endswith("-farewell")) == (63, True)
    assert farewell != place(of(Key("Trader", "lab", other), "farewell")).name
    assert len(place(of(Key("Trader", "lab", long), kind="continuous")).name) == 52
    assert place(of(Key("Trial", "lab", long))).name == long


def test_labels_tell_apart_what_has_one_name_in_two_kinds() -> None:
    trial, trader = labels(of(Key("Trial", "lab", "s-00001"))), labels(of(Key("Trader", "lab", "s-00001")))
    assert trial["cappuccino.dev/workload"] == "trial.s-00001"
    assert trader["cappuccino.dev/workload"] == "trader.s-00001"
    assert all(len(value) <= 63 for value in labels(of(Key("Deployment", "lab", "x" * 63), "grade")).values())


def test_a_workload_of_another_form_is_in_the_namespace_of_its_first_object() -> None:
    given = Workload(name="w", kind="finite", arguments=("train",), keys=(Key("Trial", "lab", "t"),))
    assert place(given) == ("lab", "w")
