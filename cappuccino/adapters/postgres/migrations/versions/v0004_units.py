"""Units that a venue account held before its live trader."""

from __future__ import annotations

from cappuccino.adapters.postgres.migrations.scripts import never, run

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

downgrade = never


def upgrade() -> None:
    run("0004_units.sql")
