"""k9s reads these files and says nothing of what it cannot use; so their shape, paths, keys and commands are checked here."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from cappuccino.api import API_VERSION, GROUP, KINDS
from cappuccino.api.crd import schema_of
from cappuccino.api.meta import Resource
from cappuccino.api.structural import at
from cappuccino.entrypoints.cli.app import app

FOLDER = Path(__file__).parents[3] / "deploy" / "k9s"
BY_PLURAL: dict[str, type[Resource]] = {kind.info.plural: kind for kind in KINDS.values()}
# Bound in every table of k9s 0.40 to 0.51: sorting, owner, wide; a plugin without `override` would not get them.
TAKEN = {"Shift-A", "Shift-J", "Shift-N", "Shift-O", "Shift-P", "Shift-S"}
ATTRIBUTES = "NTWSLRH"  # of a column; an expression must not end in one of them
COLUMN = re.compile(rf"(?P<name>[A-Z%/ -]+)(:(?P<path>\.[^|]+[^|{ATTRIBUTES}]))?(\|[{ATTRIBUTES}]{{1,3}})?")
VARIABLE = re.compile(r"\$(\w+)")
KNOWN = {"NAME", "NAMESPACE", "CONTEXT", "RESOURCE_NAME"}  # what k9s offers of the selected object, as far as we use it


def load(name: str, top: str) -> dict[str, Any]:
    document = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    assert list(document) == [top]
    return dict(document[top])


PLUGINS = load("plugins", "plugins")
HOTKEYS = load("hotkeys", "hotKeys")
VIEWS = load("views", "views")
JUMPS = load("jumps", "jumps")


def kind_of(gvr: str) -> type[Resource]:
    version, _, plural = gvr.rpartition("/")
    assert version == API_VERSION
    return BY_PLURAL[plural]


def exists(kind: type[Resource], path: str) -> bool:
    """Whether a JSON path with filters and wildcards stands in the schema of `kind`."""
    steps: list[str | int] = []
    for name, index in re.findall(r"\.(\w+)(\[[^\]]+\])?", path):
        steps += [name, 0] if index else [name]
    return at(schema_of(kind), steps) is not None


def test_every_kind_has_its_view_and_its_key() -> None:
    assert {kind_of(gvr) for gvr in VIEWS} == set(KINDS.values())
    assert {hotkey["command"] for hotkey in HOTKEYS.values()} == {kind.info.short_names[0] for kind in KINDS.values()}


@pytest.mark.parametrize("gvr", VIEWS)
def test_a_view_names_columns_that_exist(gvr: str) -> None:
    view = VIEWS[gvr]
    assert set(view) == {"sortColumn", "columns"}
    names = []
    for column in view["columns"]:
        parsed = COLUMN.fullmatch(column)
        assert parsed, column
        names.append(parsed["name"])
        if parsed["path"]:
            assert exists(kind_of(gvr), parsed["path"]), column
        else:
            assert parsed["name"] in ("NAME", "AGE")  # these k9s has of every object
    assert len(set(names)) == len(names)
    assert names[0] == "NAME"
    assert names[-1] == "AGE"
    column, order = view["sortColumn"].split(":")
    assert column in names
    assert order in ("asc", "desc")


def test_a_path_that_is_in_no_schema_is_found_out() -> None:
    assert exists(KINDS["Study"], '.status.conditions[?(@.type=="Ready")].reason')
    assert exists(KINDS["Deployment"], ".status.candidates[*].verdict")
    assert not exists(KINDS["Study"], ".status.trials.succeeded")
    assert not exists(KINDS["Study"], '.status.conditions[?(@.type=="Ready")].cause')


def test_a_jump_goes_from_one_kind_to_another_by_one_selector() -> None:
    for source, jump in JUMPS.items():
        kind_of(source)
        assert set(jump) in ({"targetGVR", "labelSelector"}, {"targetGVR", "fieldSelector"})
        key, value = next(jump[field] for field in jump if field != "targetGVR").split("=")
        assert re.fullmatch(r"\{\{\.metadata\.name\}\}(-0)?", value)
        target = jump["targetGVR"]
        if target.startswith(GROUP) and "fieldSelector" in jump:
            assert exists(kind_of(target), f".{key}")
        elif not target.startswith(GROUP):
            assert target == "v1/pods"


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_has_the_documented_shape(name: str) -> None:
    plugin = PLUGINS[name]
    assert {"shortCut", "description", "scopes", "command", "args"} <= set(plugin)
    assert set(plugin) <= {"shortCut", "description", "scopes", "command", "args", "inputs", "confirm", "dangerous"}
    assert re.fullmatch(r"Shift-[A-Z]", plugin["shortCut"])
    assert plugin["shortCut"] not in TAKEN
    assert all(isinstance(argument, str) for argument in plugin["args"])
    for field in plugin.get("inputs", ()):
        assert set(field) == {"name", "label", "type", "required"}
        assert field["type"] == "string"
    # A scope without the group would put ours on the Deployments of apps.
    assert {scope.removesuffix(f".{GROUP}") for scope in plugin["scopes"]} <= set(BY_PLURAL)
    assert all(scope.endswith(f".{GROUP}") for scope in plugin["scopes"])


def test_no_two_plugins_of_one_view_share_a_key_and_none_is_a_hot_key() -> None:
    keys = [(scope, plugin["shortCut"]) for plugin in PLUGINS.values() for scope in plugin["scopes"]]
    assert len(set(keys)) == len(keys)
    hot = [hotkey["shortCut"] for hotkey in HOTKEYS.values()]
    assert len(set(hot)) == len(hot)
    assert not {key for _, key in keys} & set(hot)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_calls_a_command_that_exists_with_options_that_it_has(name: str) -> None:
    plugin = PLUGINS[name]
    arguments = plugin["args"]
    assert plugin["command"] == "sh"
    assert arguments[0] == "-c"
    assert arguments[2:5] == ["sh", "kubectl", "cappuccino"]
    called, *given = arguments[5:]
    group = get_command(app)
    command = group.get_command(typer.Context(group), called)  # type: ignore[attr-defined]
    assert command is not None, f"there is no command {called}"
    values = {"NAME": "one", "NAMESPACE": "desk", "CONTEXT": "kind", "RESOURCE_NAME": plugin["scopes"][0].split(".")[0]}
    values |= {f"INPUT_{field['name'].upper()}": "some text" for field in plugin.get("inputs", ())}
    context = command.make_context(called, [VARIABLE.sub(lambda found: values[found[1]], word) for word in given])
    assert context.params["namespace"] == "desk"
    assert context.params["context"] == "kind"


@pytest.mark.parametrize("name", PLUGINS)
def test_what_a_person_types_reaches_no_shell(name: str) -> None:
    plugin = PLUGINS[name]
    script, *words = plugin["args"][1:]
    assert VARIABLE.findall(script) == []  # k9s puts values into the text before sh reads it
    assert '"$@"' in script
    inputs = {f"INPUT_{field['name'].upper()}" for field in plugin.get("inputs", ())}
    used = {variable for word in words for variable in VARIABLE.findall(word)}
    assert inputs <= used <= inputs | KNOWN
    assert {"NAMESPACE", "CONTEXT"} <= used  # never the kubeconfig's own context: k9s may be in another


def test_what_changes_something_asks_first_and_is_off_in_read_only_mode() -> None:
    for name, plugin in PLUGINS.items():
        changes = name.rpartition("-")[2] in ("halt", "resume", "promote")
        assert plugin.get("dangerous", False) is changes
        assert plugin.get("confirm", False) is changes
        assert ("reason" in [field["name"] for field in plugin.get("inputs", ())]) is changes


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_hands_its_words_over_as_they_are(name: str, tmp_path: Path) -> None:
    """The line that sh gets is run, with a kubectl that prints its arguments one by one."""
    for program, body in (("kubectl", "printf '<%s>\\n' \"$@\""), ("less", "cat")):
        script = tmp_path / program
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
    plugin = PLUGINS[name]
    typed = "odd\"; touch broken; $(touch broken) '#"
    words = [VARIABLE.sub(lambda found: typed, word) for word in plugin["args"]]
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(
        [plugin["command"], *words], cwd=tmp_path, env={"PATH": path}, input="\n", text=True, capture_output=True
    )
    assert done.stderr == ""
    assert done.stdout.startswith("".join(f"<{word}>\n" for word in words[4:]))
    assert not (tmp_path / "broken").exists()
