"""Objects on the terminal, in the form that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cappuccino.entrypoints.cli import kinds
from cappuccino.entrypoints.cli.options import Output

if TYPE_CHECKING:
    from cappuccino.controllers.decision import Document


def printed(found: list[tuple[str, list[Document]]], output: Output, *, single: bool, namespace: str, head: bool = True) -> str:
    """`single`: one object was asked for, which is not shown as a list. `head`: with the line of column names."""
    documents = [document for _, part in found for document in part]
    if output is Output.NAME:
        return "\n".join(kinds.shown(document["kind"], document["metadata"]["name"]) for document in documents)
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
        text = table(["Name", *(name for name, _, _ in columns)], body)
        blocks.append(text if head else text.partition("\n")[2])
    return "\n\n".join(blocks)


def _dumped(value: Any, output: Output) -> str:
    if output is Output.JSON:
        import json

        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=120).rstrip()
