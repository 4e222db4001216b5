"""The record: its tables, who may write them, and the rules that the database itself keeps."""

from __future__ import annotations

from cappuccino.adapters.postgres.migrations.scripts import never, run

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

downgrade = never


def upgrade() -> None:
    run("0001_tables.sql", "0001_rules.sql")
