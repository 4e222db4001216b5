"""Units that a venue account held before its live trader."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection  # psycopg itself: the script is sent as it is, % included
    assert driver is not None
    driver.execute((Path(__file__).parent / "0004_units.sql").read_bytes())


def downgrade() -> None:
    raise NotImplementedError("the record is never made smaller: restore a backup instead")
