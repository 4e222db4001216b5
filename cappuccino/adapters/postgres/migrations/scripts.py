"""What every step of the migrations does: run its SQL scripts, and never go back."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

from alembic import op

_VERSIONS = Path(__file__).parent / "versions"


def run(*names: str) -> None:
    driver = op.get_bind().connection.driver_connection  # psycopg itself: scripts are sent as they are, % included
    assert driver is not None
    for name in names:
        driver.execute((_VERSIONS / name).read_bytes())


def never() -> NoReturn:
    raise NotImplementedError("the record is never made smaller: restore a backup instead")
