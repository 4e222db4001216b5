"""Promotions are written with their audit rows, and live traders hold permits and a reserve."""

from __future__ import annotations

from cappuccino.adapters.postgres.migrations.scripts import never, run

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

downgrade = never


def upgrade() -> None:
    run("0002_live.sql")
