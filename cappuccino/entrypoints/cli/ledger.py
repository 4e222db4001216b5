"""audit: is the record what was written?"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from cappuccino.core.errors import InvalidInput
from cappuccino.entrypoints.cli import options
from cappuccino.entrypoints.cli.target import Target

audit = typer.Typer(help="Check the audit chain.", no_args_is_help=True)


@audit.command()
@options.targeted
def verify(
    target: Target,
    since: Annotated[str, typer.Option(help="What an earlier check said, as 12:hash: nothing up to there is gone.")] = "",
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
    """
    anchor = _anchor(since) if since else None
    if target.remote and not target.in_cluster:
        from cappuccino.entrypoints.cli.remote import chosen, in_the_operator

        namespace = operator_namespace or target.namespace or chosen(target).namespace
        typer.echo(in_the_operator(target, namespace, ["audit", "verify", *(["--since", since] if since else [])]))
        return
    from cappuccino.adapters.postgres.audit import verify_audit
    from cappuccino.adapters.postgres.engine import open_pool
    from cappuccino.entrypoints import presence
    from cappuccino.entrypoints.settings import DATABASE_URL, state_folder

    url = os.environ.get(DATABASE_URL) or presence.find(state_folder(target.state)).database_url
    with open_pool(url, "operator", max_size=1) as pool, pool.connection() as connection:
        rows, newest = verify_audit(connection, since=anchor)
    typer.echo(f"audit: {rows} rows, unbroken; keep {rows}:{newest}")


def _anchor(text: str) -> tuple[int, str]:
    seq, _, digest = text.partition(":")
    if not seq.isdecimal() or len(digest) != 64:
        raise InvalidInput(f"--since {text!r}: write it as `audit verify` printed it, number:hash")
    return int(seq), digest
