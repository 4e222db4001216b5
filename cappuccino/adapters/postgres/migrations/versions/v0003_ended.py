"""An account says that its portfolio ended in a process that goes on."""

from __future__ import annotations

from cappuccino.adapters.postgres.migrations.scripts import never, run

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

downgrade = never


def upgrade() -> None:
    run("0003_ended.sql")
