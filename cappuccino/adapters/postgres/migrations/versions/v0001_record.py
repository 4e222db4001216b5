"""The record: its tables, who may write them, and the rules that the database itself keeps."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection  # psycopg itself: scripts are sent as they are, % included
    assert driver is not None
    for name in ("0001_tables.sql", "0001_rules.sql"):
        driver.execute((Path(__file__).parent / name).read_bytes())


def downgrade() -> None:
    raise NotImplementedError("the record is never made smaller: restore a backup instead")
