"""How Alembic runs: on the connection that `ddiseg.catalogue.database` hands over."""

from __future__ import annotations

from alembic import context

from ddiseg.catalogue.tables import Base

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("run migrations with 'ddiseg init WORKSPACE'; see docs/development.md")

context.configure(
    connection=connection, target_metadata=Base.metadata, render_as_batch=True, compare_type=True
)
with context.begin_transaction():
    context.run_migrations()
