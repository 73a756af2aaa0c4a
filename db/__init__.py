"""The history of the catalogue's schema (Alembic). Installed as `ddiseg.db`."""
