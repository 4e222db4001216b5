"""Alembic's migrations of the record. Each only adds: a process of the version before keeps working beside the new schema."""
