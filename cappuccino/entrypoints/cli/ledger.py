"""audit: is the record what was written?"""

from __future__ import annotations

import os

import typer

from cappuccino.entrypoints.cli import options

audit = typer.Typer(help="Check the audit chain.", no_args_is_help=True)


@audit.command()
def verify(state: options.State = None) -> None:
    """Recompute every hash of the audit chain; a changed, removed or inserted row is named.

    Keep the answer elsewhere: only that shows later whether rows were cut off the end.

    Examples:

    \b
      cappuccino audit verify
    """
    from cappuccino.adapters.postgres.audit import verify_audit
    from cappuccino.adapters.postgres.engine import open_pool
    from cappuccino.entrypoints import presence
    from cappuccino.entrypoints.settings import DATABASE_URL, state_folder

    url = os.environ.get(DATABASE_URL) or presence.find(state_folder(state)).database_url
    with open_pool(url, "dashboard", max_size=1) as pool, pool.connection() as connection:
        rows, newest = verify_audit(connection)
    typer.echo(f"audit: {rows} rows, unbroken; newest hash {newest}")
