"""Options that several commands have, spelled as kubectl spells them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cappuccino.entrypoints.cli.target import Target


class Output(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    YAML = "yaml"
    JSON = "json"
    NAME = "name"


class Document(StrEnum):
    """Of commands whose answer is one document."""

    TEXT = "text"
    JSON = "json"


State = Annotated[
    Path | None,
    typer.Option("--state", envvar="CAPPUCCINO_STATE", show_default=False, help="Folder of the runner. Default: .cappuccino"),
]
Format = Annotated[Output, typer.Option("--output", "-o", help="Form of the answer.")]
TextOrJson = Annotated[Document, typer.Option("--output", "-o", help="Form of the answer.")]
Files = Annotated[
    list[str] | None,
    typer.Option("--filename", "-f", help="A file, a folder, or - for standard input. May be repeated.", show_default=False),
]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the record.")]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Objects of every namespace.")]
OperatorNamespace = Annotated[
    str, typer.Option("--operator-namespace", show_default=False, help="Where the operator runs. Default: the same namespace.")
]
Seconds = Annotated[float, typer.Option("--timeout", min=0, help="Seconds to wait until it has been acted on.")]

_TARGET: dict[str, tuple[Any, Any]] = {
    "namespace": (
        Annotated[
            str,
            typer.Option(
                "--namespace", "-n", show_default=False, help="Namespace of the objects. Default: the context's, else default."
            ),
        ],
        "",
    ),
    "state": (State, None),
    "kubernetes": (
        Annotated[
            bool, typer.Option("--kubernetes", help="The cluster of the kubeconfig, as `kubectl cappuccino` without options.")
        ],
        False,
    ),
    "context": (Annotated[str, typer.Option("--context", help="The cluster of that context of the kubeconfig.")], ""),
    "kubeconfig": (
        Annotated[
            Path | None,
            typer.Option("--kubeconfig", show_default=False, help="Default: KUBECONFIG, else ~/.kube/config."),
        ],
        None,
    ),
    "in_cluster": (Annotated[bool, typer.Option("--in-cluster", hidden=True)], False),
}


def targeted(command: Callable[..., Any]) -> Callable[..., Any]:
    """`command` with the options that say which cluster and namespace; it gets them as its parameter `target`."""
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
        for name, (annotation, default) in _TARGET.items()
    ]
    own = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for name, each in signature.parameters.items() if name != "target"]

    def run(**given: Any) -> Any:
        return command(target=Target(**{name: given.pop(name) for name in _TARGET}), **given)

    run.__name__, run.__doc__, run.__module__ = command.__name__, command.__doc__, command.__module__
    run.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in (*own, *added)}
    return run
