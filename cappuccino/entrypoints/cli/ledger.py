"""audit: is the record what was written?"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING, Annotated

import typer

from cappuccino.core.clock import iso
from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.cli import options
from cappuccino.entrypoints.cli.target import Target

if TYPE_CHECKING:
    from cappuccino.controllers.rows import AuditRow

audit = typer.Typer(help="Check the audit chain.", no_args_is_help=True)


@audit.command()
@options.targeted
def verify(
    target: Target,
    since: Annotated[str, typer.Option(help="What an earlier check said, as 12:hash: nothing up to there is gone.")] = "",
    rows: Annotated[int, typer.Option(min=0, help="Print so many of the newest rows: who did what, when and why.")] = 0,
    operator_namespace: options.OperatorNamespace = "",
) -> None:
    """Recompute every hash of the audit chain; a changed, removed or inserted row is named.

    Keep the answer elsewhere and give it with --since later: only that shows whether rows were cut off the end. On
    Kubernetes it is asked of the operator's pod, which reaches the record: that needs kubectl, and the right to create
    pods/exec there.

    Examples:

    \b
      cappuccino audit verify
      cappuccino audit verify --since 12:9f2c...
      cappuccino audit verify --rows 10
    """
    anchor = _anchor(since) if since else None
    if target.remote and not target.in_cluster:
        from cappuccino.entrypoints.cli.remote import chosen, in_the_operator

        namespace = operator_namespace or target.namespace or chosen(target).namespace
        given = [*(["--since", since] if since else []), *(["--rows", str(rows)] if rows else [])]
        typer.echo(in_the_operator(target, namespace, ["audit", "verify", *given]))
        return
    from cappuccino.adapters.postgres.audit import verify_audit
    from cappuccino.adapters.postgres.engine import open_pool
    from cappuccino.entrypoints import presence
    from cappuccino.entrypoints.settings import DATABASE_URL, state_folder

    url = os.environ.get(DATABASE_URL) or presence.find(state_folder(target.state)).database_url
    last: deque[AuditRow] = deque(maxlen=rows)
    with open_pool(url, "operator", max_size=1) as pool, pool.connection() as connection:
        count, newest = verify_audit(connection, since=anchor, told=last.append)
    typer.echo(f"audit: {count} rows, unbroken; keep {count}:{newest}")
    for row in last:
        typer.echo(f"{row.seq}  {iso(row.recorded_at)}  {row.actor}  {row.action}  {row.subject}  {row.body.get('reason', '')}")


def _anchor(text: str) -> tuple[int, str]:
    seq, _, digest = text.partition(":")
    if not seq.isdecimal() or len(digest) != 64:
        raise InvalidInput(f"--since {text!r}: write it as `audit verify` printed it, number:hash")
    return int(seq), digest
