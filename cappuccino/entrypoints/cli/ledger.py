"""audit: is the record what was written?"""

from __future__ import annotations

import os

import typer

from cappuccino.entrypoints.cli import options
from cappuccino.entrypoints.cli.target import Target

audit = typer.Typer(help="Check the audit chain.", no_args_is_help=True)


@audit.command()
@options.targeted
def verify(target: Target, operator_namespace: options.OperatorNamespace = "") -> None:
    """Recompute every hash of the audit chain; a changed, removed or inserted row is named.

    Keep the answer elsewhere: only that shows later whether rows were cut off the end. On Kubernetes it is asked of the
    operator's pod, which reaches the record: that needs kubectl, and the right to create pods/exec there.

    Examples:

    \b
      cappuccino audit verify
    """
    if target.remote and not target.in_cluster:
        from cappuccino.entrypoints.cli.remote import chosen, in_the_operator

        namespace = operator_namespace or target.namespace or chosen(target).namespace
        typer.echo(in_the_operator(target, namespace, ["audit", "verify"]))
        return
    from cappuccino.adapters.postgres.audit import verify_audit
    from cappuccino.adapters.postgres.engine import open_pool
    from cappuccino.entrypoints import presence
    from cappuccino.entrypoints.settings import DATABASE_URL, state_folder

    url = os.environ.get(DATABASE_URL) or presence.find(state_folder(target.state)).database_url
    with open_pool(url, "operator", max_size=1) as pool, pool.connection() as connection:
        rows, newest = verify_audit(connection)
    typer.echo(f"audit: {rows} rows, unbroken; newest hash {newest}")
