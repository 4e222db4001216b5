"""Promotions are written with their audit rows, and live traders hold permits and a reserve."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection  # psycopg itself: the script is sent as it is, % included
    assert driver is not None
    driver.execute((Path(__file__).parent / "0002_live.sql").read_bytes())


def downgrade() -> None:
    raise NotImplementedError("the record is never made smaller: restore a backup instead")
