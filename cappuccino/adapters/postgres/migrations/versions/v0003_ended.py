"""An account says that its portfolio ended in a process that goes on."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    driver = op.get_bind().connection.driver_connection  # psycopg itself: the script is sent as it is, % included
    assert driver is not None
    driver.execute((Path(__file__).parent / "0003_ended.sql").read_bytes())


def downgrade() -> None:
    raise NotImplementedError("the record is never made smaller: restore a backup instead")
