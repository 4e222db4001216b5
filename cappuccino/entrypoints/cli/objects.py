"""apply, get, describe, delete: manifests in, objects out."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cappuccino.core.errors import Conflict, InvalidInput
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.options import Output
from cappuccino.entrypoints.cli.target import Target

if TYPE_CHECKING:
    from cappuccino.controllers.decision import Document

_WATCH_SECONDS = 1.0

Words = Annotated[list[str] | None, typer.Argument(help="KIND, KIND NAME, KIND/NAME or all.", show_default=False)]


@options.targeted
def apply(
    target: Target,
    filename: options.Files = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check by model and schema only; needs no cluster.")] = False,
) -> None:
    """Create objects, or change them to what the manifests say.

    Every document is checked before any is applied.

    Examples:

    \b
      cappuccino apply -f examples/quickstart/
      cappuccino apply -f study.yaml --dry-run
      cat *.yaml | cappuccino apply -f -
    """
    documents = _checked(filename)
    if dry_run:
        for document in documents:
            typer.echo(f"{_shown(document)} valid (dry run)")
        return

    async def run(cluster: Cluster) -> None:
        for document in (_placed(each, cluster.namespace) for each in documents):
            before = await cluster.objects.get(_key(document))
            after = await cluster.objects.apply(document)
            version = [d["metadata"]["resourceVersion"] for d in (before, after) if d]
            outcome = "created" if before is None else "unchanged" if version[0] == version[1] else "configured"
            typer.echo(f"{_shown(document)} {outcome}")

    ask(target, run)


@options.targeted
def get(
    target: Target,
    what: Words = None,
    output: options.Format = Output.TABLE,
    selector: Annotated[str, typer.Option("--selector", "-l", help="Labels, as key=value,key=value.")] = "",
    all_namespaces: options.AllNamespaces = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, and print what changes, until Ctrl-C.")] = False,
) -> None:
    """List objects, or show some.

    Examples:

    \b
      cappuccino get all
      cappuccino get trials -l cappuccino.dev/study=quickstart
      cappuccino get study quickstart -o yaml
      cappuccino get trader/quickstart-0 trader/quickstart-hodl --output json
      cappuccino get traders --watch
    """
    from cappuccino.entrypoints.cli.printing import printed

    wanted = kinds.targets(what or [])
    labels = _labels(selector)
    if watch and (len(wanted) != 1 or output in (Output.JSON, Output.YAML)):
        raise InvalidInput("--watch follows one kind or one object, as a table or by names")

    async def look(cluster: Cluster) -> list[tuple[str, list[Document]]]:
        found: list[tuple[str, list[Document]]] = []
        for kind, name in wanted:
            if name is None:
                where = None if all_namespaces else cluster.namespace
                documents = await cluster.objects.list(kind, namespace=where, labels=labels)
            else:
                documents = [await _existing(cluster, kind, name)]
            if found and found[-1][0] == kind:
                found[-1][1].extend(documents)
            else:
                found.append((kind, documents))
        return found

    async def run(cluster: Cluster) -> None:
        found = await look(cluster)
        single = len(wanted) == 1 and wanted[0][1] is not None
        typer.echo(printed(found, output, single=single, namespace=cluster.namespace))
        while watch:
            await asyncio.sleep(_WATCH_SECONDS)
            before, found = {_version(document) for _, part in found for document in part}, await look(cluster)
            changed = [(kind, [document for document in part if _version(document) not in before]) for kind, part in found]
            if any(part for _, part in changed):
                typer.echo(printed(changed, output, single=False, namespace=cluster.namespace, head=False))

    ask(target, run)


@options.targeted
def describe(target: Target, what: Words = None) -> None:
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
                await cluster.objects.list(kind, namespace=cluster.namespace)
                if name is None
                else [await _existing(cluster, kind, name)]
            )
            for document in documents:
                key = Key(kind, cluster.namespace, document["metadata"]["name"])
                try:
                    events = await cluster.events(key)
                except InvalidInput as error:  # who may look at the object may not look at its events
                    typer.echo(f"warning: without events: {error}", err=True)
                    events = ()
                texts.append(described(document, events))
        return texts or [f"no objects in namespace {cluster.namespace}"]

    typer.echo("\n\n".join(ask(target, run)))


@options.targeted
def delete(
    target: Target,
    what: Words = None,
    filename: options.Files = None,
    everything: Annotated[bool, typer.Option("--all", help="Every object of the kinds named.")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="An absent object is success.")] = False,
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
    documents = _checked(filename) if filename else []
    named = [] if filename else kinds.targets(what or [])
    if not everything and (bare := [kind for kind, name in named if name is None]):
        raise InvalidInput(f"{bare[0]}: name the objects to delete, or add --all for every one")

    async def run(cluster: Cluster) -> None:
        space = cluster.namespace
        keys = [_key(_placed(document, space)) for document in documents]
        for kind, name in named:
            names = [name] if name else [d["metadata"]["name"] for d in await cluster.objects.list(kind, namespace=space)]
            keys += [Key(kind, space, each) for each in names]
        for key in keys:
            if await cluster.objects.get(key) is not None:
                await cluster.objects.delete(key)
                typer.echo(f"{kinds.shown(key.kind, key.name)} deleted")
            elif not ignore_not_found:
                raise kinds.absent(key.kind, key.name, key.namespace)

    ask(target, run)


# --- parts ------------------------------------------------------------------------------------------


def _checked(sources: list[str] | None) -> list[Document]:
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
                documents.append(document)
    if wrong:
        raise InvalidInput("\n".join(wrong))
    if not documents:
        raise InvalidInput(f"{', '.join(sources)}: no documents in there")
    seen: set[Any] = set()
    for key in (_key(_placed(document, "")) for document in documents):
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


async def _existing(cluster: Cluster, kind: str, name: str) -> Document:
    from cappuccino.controllers.decision import Key

    document = await cluster.objects.get(Key(kind, cluster.namespace, name))
    if document is None:
        raise kinds.absent(kind, name, cluster.namespace)
    return document


def _version(document: Document) -> tuple[str, str]:
    return document["metadata"]["uid"], document["metadata"]["resourceVersion"]
