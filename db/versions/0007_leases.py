"""Leases, and jobs that know their server; no job's id is given out twice.

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import sqlalchemy as sa
from alembic import op
from alembic.operations import BatchOperations

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=40), nullable=False),
        sa.Column("owner", sa.String(length=36), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("machine", sa.String(length=200), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started", sa.String(length=100), nullable=True),
        sa.Column("acquired_at", sa.Double(), nullable=False),
        sa.Column("heartbeat_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    with _jobs(autoincrement=True) as jobs:
        jobs.add_column(sa.Column("owner", sa.String(length=36), nullable=True))


def downgrade() -> None:
    # What is lost: who runs what at this moment. Where several processes share the catalogue, stop
    # them first: the program of schema 0006 knows those of its own folder only.
    with _jobs(autoincrement=False) as jobs:
        jobs.drop_column("owner")
    op.drop_table("leases")


def _jobs(*, autoincrement: bool) -> AbstractContextManager[BatchOperations]:
    """SQLite gets or loses AUTOINCREMENT only with a copy of the table; PostgreSQL needs none."""
    copy = op.get_bind().dialect.name == "sqlite"
    return op.batch_alter_table(
        "jobs",
        recreate="always" if copy else "never",
        table_kwargs={"sqlite_autoincrement": autoincrement},
    )
