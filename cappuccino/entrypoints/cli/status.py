"""status: how far a Study is and what everything that waits is waiting for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.cli import kinds, options
from cappuccino.entrypoints.cli.connection import Cluster, ask
from cappuccino.entrypoints.cli.target import Target

if TYPE_CHECKING:
    from cappuccino.entrypoints.cli.tree import Node
    from cappuccino.reconcile.ports import Document

_KINDS = ("Study", "Deployment")


@options.targeted
def status(
    target: Target,
    what: Annotated[
        list[str] | None, typer.Argument(help="A Study by NAME, or study/NAME, mdep/NAME. Default: all.", show_default=False)
    ] = None,
) -> None:
    """Show a Study with its Trials, Deployments, candidates and Traders, and why each that waits does.

    Examples:

    \b
      cappuccino status
      cappuccino status quickstart
      kubectl cappuccino status mdep/quickstart
    """
    from cappuccino.entrypoints.cli.tree import rendered

    wanted = _wanted(what or [])
    if strange := next((kind for kind, _ in wanted if kind not in _KINDS), None):
        raise InvalidInput(f"status is of a Study or a Deployment, not of a {strange}: `describe` shows one object")

    async def run(cluster: Cluster) -> list[Node]:
        nodes = []
        for kind, name in wanted:
            for document in await _documents(cluster, kind, name, beside_studies=len(wanted) > 1):
                nodes.append(await (_study if kind == "Study" else _deployment)(cluster, document))
        return nodes

    nodes = ask(target, run)
    typer.echo("\n\n".join(map(rendered, nodes)) or "no Study and no Deployment here: apply one")


def _wanted(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """A word that is no kind is the name of a Study."""
    if not words:
        return [(kind, None) for kind in _KINDS]
    if len(words) == 1 and "/" not in words[0]:
        try:
            return [(kinds.resolve(words[0]), None)]
        except InvalidInput:
            return [("Study", words[0])]
    return kinds.targets(words)


async def _documents(cluster: Cluster, kind: str, name: str | None, *, beside_studies: bool) -> list[Document]:
    from cappuccino.controllers.decision import Key

    if name is None:
        found = await cluster.objects.list(kind, namespace=cluster.namespace)
        alone = kind == "Deployment" and beside_studies  # the others stand below their Study
        return [document for document in found if not alone or "studyRef" not in document["spec"]]
    document = await cluster.objects.get(Key(kind, cluster.namespace, name))
    if document is None:
        raise kinds.absent(kind, name, cluster.namespace)
    return [document]


async def _study(cluster: Cluster, study: Document) -> Node:
    from cappuccino.controllers.decision import Key
    from cappuccino.entrypoints.cli.tree import study_node
    from cappuccino.reconcile.observers import STUDY_LABEL

    objects, space, name = cluster.objects, cluster.namespace, study["metadata"]["name"]
    dataset = await objects.get(Key("Dataset", space, study["spec"]["datasetRef"]["name"]))
    trials = await objects.list("Trial", namespace=space, labels={STUDY_LABEL: name})
    deployments = [
        await _deployment(cluster, document)
        for document in await objects.list("Deployment", namespace=space)
        if document["spec"].get("studyRef", {}).get("name") == name
    ]
    return study_node(study, dataset, trials, deployments)


async def _deployment(cluster: Cluster, deployment: Document) -> Node:
    from cappuccino.entrypoints.cli.tree import deployment_node
    from cappuccino.reconcile.observers import DEPLOYMENT_LABEL

    labels = {DEPLOYMENT_LABEL: deployment["metadata"]["name"]}
    return deployment_node(deployment, await cluster.objects.list("Trader", namespace=cluster.namespace, labels=labels))
