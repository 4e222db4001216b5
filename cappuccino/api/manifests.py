"""Manifests as text: YAML or JSON, one document or many, read as kubectl reads them.

YAML as Kubernetes has it, which differs from PyYAML's: a bare 2024-01-01T00:00:00Z stays text, 1e-4 is a number, and a
key that stands twice in one map is refused instead of the last one winning.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml

from cappuccino.api import KINDS
from cappuccino.api.meta import API_VERSION, Resource, dotted
from cappuccino.core.errors import InvalidInput

Document = dict[str, Any]
SUFFIXES = (".yaml", ".yml", ".json")


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is not text: put it in quotes", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key!r} stands twice: keep one", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9][0-9_]*(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read(text: str, *, source: str) -> list[tuple[Document, str]]:
    """(document, where it stands) of each document in `text`; a List is unfolded, an empty document left out.

    Raises:
        InvalidInput: the text is no YAML, or a document is no mapping; with line and column.
    """
    found: list[tuple[Document, str]] = []
    try:
        nodes = list(yaml.compose_all(text, Loader=_Loader))
        many = len(nodes) > 1
        for node in nodes:
            where = f"{source}:{node.start_mark.line + 1}" if many else source
            value = _construct(node)
            if value is None:
                continue
            if not isinstance(value, dict):
                raise InvalidInput(
                    f"{where}: a manifest is a mapping with apiVersion, kind, metadata and spec, got {value!r:.60}"
                )
            items = value.get("items") if str(value.get("kind", "")).endswith("List") else None
            found += (
                [(item, f"{where}: items[{i}]") for i, item in enumerate(items)]
                if isinstance(items, list)
                else [(value, where)]
            )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise InvalidInput(f"{source}{at}: not valid YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise InvalidInput(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    return found


def _construct(node: yaml.Node) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    finally:
        loader.dispose()


def files(path: Path) -> Iterator[Path]:
    """`path` itself, or the manifests of a folder and those below it, by name.

    Raises:
        InvalidInput: there is nothing to read.
    """
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise InvalidInput(f"{path}: no such file or folder")
    found = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
    if not found:
        raise InvalidInput(f"{path}: no manifests in this folder: they end in {', '.join(SUFFIXES)}")
    yield from found


def load(path: Path) -> list[tuple[Document, str]]:
    """Every document of a file or a folder, with where it stands."""
    found = []
    for file in files(path):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{file}: byte {error.start} is not UTF-8 text: is this a manifest?") from error
        found += read(text, source=str(file))
    return found


def parse(document: Document, *, source: str = "manifest") -> Resource:
    """The model of a document of any of our kinds.

    Raises:
        InvalidInput: unknown kind or API version, or the model refuses it; one line with field, value and remedy.
    """
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind not in KINDS:
        close = difflib.get_close_matches(str(kind), KINDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"use one of {', '.join(KINDS)}"
        raise InvalidInput(f"{source}: kind: unknown kind (got {kind!r}); {hint}")
    if version != API_VERSION:
        raise InvalidInput(f"{source}: apiVersion: unknown version of {kind} (got {version!r}); write {API_VERSION}")
    return KINDS[kind].parse(document, source=source)


def check(document: Document, *, source: str = "manifest") -> Resource:
    """`parse`, and the JSON schema of the CRD as well: what an API server would say, without one.

    Raises:
        InvalidInput: as `parse`.
    """
    from jsonschema import Draft4Validator  # slow to import, and needed for a dry run only

    from cappuccino.api.crd import manifest_schema

    resource = parse(document, source=source)
    errors = sorted(Draft4Validator(manifest_schema(type(resource))).iter_errors(document), key=lambda e: list(e.absolute_path))
    if errors:
        path = cast("list[str | int]", list(errors[0].absolute_path))
        raise InvalidInput(f"{source}: {dotted(path) or '(document)'}: {errors[0].message}")
    return resource
