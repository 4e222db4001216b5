"""The record: PostgreSQL through psycopg and SQLAlchemy Core. One pool per process."""
