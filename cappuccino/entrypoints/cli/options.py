"""Options that several commands have, spelled as kubectl spells them."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


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


Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the objects.")]
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
