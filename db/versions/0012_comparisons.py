"""Comparisons of masks, stored; indexes that hold what `ddiseg status` counts.

Comparisons are made when they are first asked for: the masks are files, which no migration reads.

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_ON_SERVER = sa.text("remote_id IS NOT NULL AND deleted_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "mask_comparisons",
        sa.Column("mask_id", sa.Integer(), nullable=False),
        sa.Column("other_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("lesion_dice", sa.Double(), nullable=True),
        sa.Column("mean_dice", sa.Double(), nullable=True),
        sa.Column("changed", sa.Double(), nullable=True),
        sa.CheckConstraint(
            "kind IN ('prediction', 'reading')", name=op.f("ck_mask_comparisons_kind")
        ),
        sa.ForeignKeyConstraint(
            ["mask_id"], ["masks.id"], name=op.f("fk_mask_comparisons_mask_id_masks")
        ),
        sa.ForeignKeyConstraint(
            ["other_id"], ["masks.id"], name=op.f("fk_mask_comparisons_other_id_masks")
        ),
        sa.PrimaryKeyConstraint("mask_id", "other_id", "kind", name=op.f("pk_mask_comparisons")),
    )
    op.drop_index("ix_images_dataset_id", "images")
    op.create_index("ix_images_counted", "images", ["dataset_id", "tone", "state"])
    op.create_index(
        "ix_tasks_on_server",
        "tasks",
        ["project_id", "image_id", "readers"],
        sqlite_where=_ON_SERVER,
        postgresql_where=_ON_SERVER,
    )


def downgrade() -> None:
    # Nothing is lost that the masks do not hold.
    op.drop_index("ix_tasks_on_server", "tasks")
    op.drop_index("ix_images_counted", "images")
    op.create_index("ix_images_dataset_id", "images", ["dataset_id"])
    op.drop_table("mask_comparisons")
