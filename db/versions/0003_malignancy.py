"""Malignancy: model versions of another kind, and what they said of images.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Masks refer to model_versions: SQLite must add the columns where they are, not in a copy of the
    # table, so each brings its default and its check along.
    op.execute(
        "ALTER TABLE model_versions ADD COLUMN kind VARCHAR(20) DEFAULT 'segmentation' NOT NULL "
        "CONSTRAINT ck_model_versions_kind CHECK (kind IN ('segmentation', 'malignancy'))"
    )
    op.execute("ALTER TABLE model_versions ADD COLUMN training_images JSON DEFAULT '{}' NOT NULL")
    op.create_table(
        "malignancy_estimates",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.CheckConstraint(
            "probability BETWEEN 0 AND 1", name=op.f("ck_malignancy_estimates_probability")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_malignancy_estimates_image_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_malignancy_estimates_model_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint(
            "image_id", "model_version_id", name=op.f("pk_malignancy_estimates")
        ),
    )


def downgrade() -> None:
    op.drop_table("malignancy_estimates")
    # The program of schema 0002 would take the newest version of any kind for the one that paints.
    op.execute("DELETE FROM model_versions WHERE kind = 'malignancy'")
    op.drop_column("model_versions", "training_images")
    op.drop_column("model_versions", "kind")
