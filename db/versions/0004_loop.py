"""The loop: batches, sides, which model version is in use and why, rounds and jobs.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

#: In the order in which they can be dropped.
TABLES = ("jobs", "rounds", "batch_members", "batches", "descriptors", "sides", "promotions")


def upgrade() -> None:
    # As in 0003: masks refer to model_versions, so the column is added where the table is.
    op.execute("ALTER TABLE model_versions ADD COLUMN gate JSON")
    _promotions()
    op.create_table(
        "sides",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("side", sa.String(length=10), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.CheckConstraint(
            "side IN ('training', 'held_out', 'neither')", name=op.f("ck_sides_side")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_sides_image_id_images")),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_sides")),
    )
    op.create_table(
        "descriptors",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("space", sa.String(length=64), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_descriptors_image_id_images")
        ),
        sa.PrimaryKeyConstraint("image_id", "space", name=op.f("pk_descriptors")),
    )
    _batches()
    _rounds_and_jobs()


def _promotions() -> None:
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("forced", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_promotions_model_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotions")),
    )
    op.create_index(op.f("ix_promotions_model_version_id"), "promotions", ["model_version_id"])
    # Until now the newest version of a kind was the one in use.
    op.execute(
        "INSERT INTO promotions (model_version_id, actor, why, forced, created_at) "
        "SELECT id, 'ddiseg', 'in use before there was a gate', false, created_at "
        "FROM model_versions ORDER BY id"
    )


def _batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("drawn_by", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.Column("closed_at", sa.String(length=40), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
        sa.UniqueConstraint("name", name=op.f("uq_batches_name")),
    )
    op.create_table(
        "batch_members",
        sa.Column("batch_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("random", sa.Boolean(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["batch_id"], ["batches.id"], name=op.f("fk_batch_members_batch_id_batches")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_batch_members_image_id_images")
        ),
        sa.PrimaryKeyConstraint("batch_id", "image_id", name=op.f("pk_batch_members")),
    )
    op.create_index(op.f("ix_batch_members_image_id"), "batch_members", ["image_id"])


def _rounds_and_jobs() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.String(length=40), nullable=False),
        sa.Column("ended_at", sa.String(length=40), nullable=True),
        sa.Column("outcome", sa.String(length=10), nullable=True),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.CheckConstraint("outcome IN ('done', 'failed')", name=op.f("ck_rounds_outcome")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("requested_at", sa.String(length=40), nullable=False),
        sa.Column("started_at", sa.String(length=40), nullable=True),
        sa.Column("ended_at", sa.String(length=40), nullable=True),
        sa.Column("problem", sa.String(), nullable=True),
        sa.CheckConstraint("kind IN ('pull', 'refresh', 'paint')", name=op.f("ck_jobs_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.create_index(
        "uq_jobs_waiting",
        "jobs",
        ["kind"],
        unique=True,
        sqlite_where=sa.text("started_at IS NULL"),
        postgresql_where=sa.text("started_at IS NULL"),
    )


def downgrade() -> None:
    # What is lost: batches, sides, verdicts; the program of schema 0003 uses the newest version.
    for table in TABLES:
        op.drop_table(table)
    op.drop_column("model_versions", "gate")
