"""apply, get, describe, delete: manifests in, objects out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cappuccino.core.errors import Conflict, InvalidInput, NotFound
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.options import Output

if TYPE_CHECKING:
    from cappuccino.controllers.decision import Document

Words = Annotated[list[str] | None, typer.Argument(help="KIND, KIND NAME, KIND/NAME or all.", show_default=False)]


def apply(
    filename: options.Files = None,
    namespace: options.Namespace = "default",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check by model and schema only; needs no runner.")] = False,
    state: options.State = None,
) -> None:
    """Create objects, or change them to what the manifests say.

    Every document is checked before any is applied.

    Examples:

    \b
      cappuccino apply -f examples/quickstart/
      cappuccino apply -f study.yaml --dry-run
      cat *.yaml | cappuccino apply -f -
    """
    documents = _checked(filename, namespace)
    if dry_run:
        for document in documents:
            typer.echo(f"{_shown(document)} valid (dry run)")
        return

    async def run(cluster: Cluster) -> None:
        for document in documents:
            before = await cluster.objects.get(_key(document))
            after = await cluster.objects.apply(document)
            version = [d["metadata"]["resourceVersion"] for d in (before, after) if d]
            outcome = "created" if before is None else "unchanged" if version[0] == version[1] else "configured"
            typer.echo(f"{_shown(document)} {outcome}")

    ask(state, run)


def get(
    what: Words = None,
    output: options.Format = Output.TABLE,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, as key=value,key=value.")] = "",
    namespace: options.Namespace = "default",
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Objects of every namespace.")] = False,
    state: options.State = None,
) -> None:
    """List objects, or show some.

    Examples:

    \b
      cappuccino get all
      cappuccino get trials -l cappuccino.dev/study=quickstart
      cappuccino get study quickstart -o yaml
      cappuccino get trader/quickstart-0 trader/quickstart-hodl --output json
    """
    wanted = kinds.targets(what or [])
    labels = _labels(selector)

    async def run(cluster: Cluster) -> list[tuple[str, list[Document]]]:
        found: list[tuple[str, list[Document]]] = []
        for kind, name in wanted:
            if name is None:
                documents = await cluster.objects.list(kind, namespace=None if all_namespaces else namespace, labels=labels)
            else:
                documents = [await _existing(cluster, kind, namespace, name)]
            if found and found[-1][0] == kind:
                found[-1][1].extend(documents)
            else:
                found.append((kind, documents))
        return found

    found = ask(state, run)
    typer.echo(_printed(found, output, single=len(wanted) == 1 and wanted[0][1] is not None, namespace=namespace))


def describe(
    what: Words = None,
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Show an object with its conditions and what happened to it.

    Examples:

    \b
      cappuccino describe study quickstart
      cappuccino describe mdep/quickstart
    """
    from cappuccino.controllers.decision import Key
    from cappuccino.entrypoints.cli.description import described

    wanted = kinds.targets(what or [])

    async def run(cluster: Cluster) -> list[str]:
        texts = []
        for kind, name in wanted:
            documents = (
                await cluster.objects.list(kind, namespace=namespace)
                if name is None
                else [await _existing(cluster, kind, namespace, name)]
            )
            for document in documents:
                events = await cluster.events.of(Key(kind, namespace, document["metadata"]["name"]))
                texts.append(described(document, events))
        return texts

    typer.echo("\n\n".join(ask(state, run)) or f"no objects in namespace {namespace}")


def delete(
    what: Words = None,
    filename: options.Files = None,
    everything: Annotated[bool, typer.Option("--all", help="Every object of the kinds named.")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="An absent object is success.")] = False,
    namespace: options.Namespace = "default",
    state: options.State = None,
) -> None:
    """Delete objects, and what they own. The record stays.

    A Trader first flattens or hands over its positions, as its spec says.

    Examples:

    \b
      cappuccino delete trader quickstart-0
      cappuccino delete -f examples/quickstart/
      cappuccino delete trials --all
    """
    from cappuccino.controllers.decision import Key

    if filename and what:
        raise InvalidInput("name objects or give -f, not both")
    if filename:
        keys = [_key(document) for document in _checked(filename, namespace)]
        named: list[tuple[str, str | None]] = [(key.kind, key.name) for key in keys]
    else:
        named = kinds.targets(what or [])
        if not everything and (bare := [kind for kind, name in named if name is None]):
            raise InvalidInput(f"{bare[0]}: name the objects to delete, or add --all for every one")

    async def run(cluster: Cluster) -> None:
        for kind, name in named:
            if name is not None:
                keys = [Key(kind, namespace, name)]
            else:
                keys = [
                    Key(kind, namespace, d["metadata"]["name"]) for d in await cluster.objects.list(kind, namespace=namespace)
                ]
            for key in keys:
                if await cluster.objects.get(key) is None:
                    if ignore_not_found:
                        continue
                    raise _absent(kind, key.name, namespace)
                await cluster.objects.delete(key)
                typer.echo(f"{kinds.shown(kind, key.name)} deleted")

    ask(state, run)


# --- parts ------------------------------------------------------------------------------------------


def _checked(sources: list[str] | None, namespace: str) -> list[Document]:
    """Every document of the sources, checked; all that is wrong is said at once, a line for each document."""
    from cappuccino.api import manifests

    if not sources:
        raise InvalidInput("name the manifests: -f FILE, -f FOLDER, or -f - for standard input")
    documents: list[Document] = []
    wrong: list[str] = []
    for source in sources:
        try:
            texts = manifests.read(sys.stdin.read(), source="stdin") if source == "-" else manifests.load(Path(source))
        except InvalidInput as error:
            wrong.append(str(error))
            continue
        for document, where in texts:
            try:
                manifests.check(document, source=where)
            except InvalidInput as error:
                wrong.append(str(error))
            else:
                documents.append(_placed(document, namespace))
    if wrong:
        raise InvalidInput("\n".join(wrong))
    if not documents:
        raise InvalidInput(f"{', '.join(sources)}: no documents in there")
    seen: set[Any] = set()
    for key in map(_key, documents):
        if key in seen:
            raise Conflict(f"{kinds.shown(key.kind, key.name)} is declared twice in {', '.join(sources)}: keep one")
        seen.add(key)
    return documents


def _placed(document: Document, namespace: str) -> Document:
    metadata = document["metadata"]
    return {**document, "metadata": {**metadata, "namespace": metadata.get("namespace") or namespace}}


def _key(document: Document) -> Any:
    from cappuccino.controllers.decision import Key

    metadata = document["metadata"]
    return Key(document["kind"], metadata.get("namespace", "default"), metadata["name"])


def _shown(document: Document) -> str:
    return kinds.shown(document["kind"], document["metadata"]["name"])


def _labels(selector: str) -> dict[str, str]:
    parts = [part.partition("=") for part in selector.split(",") if part]
    if wrong := [key for key, equals, value in parts if not (key and equals and value)]:
        raise InvalidInput(f"selector {selector!r}: write key=value,key=value (at {wrong[0]!r})")
    return {key: value for key, _, value in parts}


async def _existing(cluster: Cluster, kind: str, namespace: str, name: str) -> Document:
    from cappuccino.controllers.decision import Key

    document = await cluster.objects.get(Key(kind, namespace, name))
    if document is None:
        raise _absent(kind, name, namespace)
    return document


def _absent(kind: str, name: str, namespace: str) -> NotFound:
    from cappuccino.api import KINDS

    return NotFound(
        f"{kinds.shown(kind, name)} is not in namespace {namespace}: `cappuccino get {KINDS[kind].info.plural}` lists them"
    )


def _printed(found: list[tuple[str, list[Document]]], output: Output, *, single: bool, namespace: str) -> str:
    documents = [document for _, part in found for document in part]
    if output is Output.NAME:
        return "\n".join(_shown(document) for document in documents)
    if output in (Output.JSON, Output.YAML):
        whole: Document = {"apiVersion": "v1", "kind": "List", "items": documents}
        return _dumped(documents[0] if single else whole, output)
    if not documents:
        return f"no objects in namespace {namespace}"
    from cappuccino.api import KINDS
    from cappuccino.core.clock import SystemClock
    from cappuccino.entrypoints.cli.tables import rows, table

    now = SystemClock().now()
    several = len([kind for kind, part in found if part]) > 1
    blocks = []
    for kind, part in found:
        if not part:
            continue
        info = KINDS[kind].info
        columns = (*info.columns, *(info.wide if output is Output.WIDE else ()))
        body = rows(part, columns, now)
        if several:
            body = [[kinds.shown(kind, line[0]), *line[1:]] for line in body]
        blocks.append(table(["Name", *(name for name, _, _ in columns)], body))
    return "\n\n".join(blocks)


def _dumped(value: Any, output: Output) -> str:
    if output is Output.JSON:
        import json

        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip()
