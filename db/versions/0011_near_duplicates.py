"""Thumbnails, confirmed near-duplicates and their groups.

The images in the catalogue have no thumbnail yet: the next import makes them from the stored
photographs.

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As in 0005: other tables refer to this one, so SQLite must add the column where the table is.
    op.execute("ALTER TABLE images ADD COLUMN near_group INTEGER")
    op.create_index(op.f("ix_images_near_group"), "images", ["near_group"])
    op.create_table(
        "thumbnails",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("pixels", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_thumbnails_image_id_images")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_thumbnails")),
    )
    op.create_table(
        "near_duplicates",
        sa.Column("first_id", sa.Integer(), nullable=False),
        sa.Column("second_id", sa.Integer(), nullable=False),
        sa.Column("correlation", sa.Double(), nullable=False),
        sa.Column("change", sa.String(length=10), nullable=False),
        sa.ForeignKeyConstraint(
            ["first_id"], ["images.id"], name=op.f("fk_near_duplicates_first_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["second_id"], ["images.id"], name=op.f("fk_near_duplicates_second_id_images")
        ),
        sa.PrimaryKeyConstraint("first_id", "second_id", name=op.f("pk_near_duplicates")),
    )
    op.create_index(op.f("ix_near_duplicates_second_id"), "near_duplicates", ["second_id"])


def downgrade() -> None:
    # Nothing is lost that the photographs do not hold. The earlier program compares perceptual hashes.
    op.drop_table("near_duplicates")
    op.drop_table("thumbnails")
    op.drop_index(op.f("ix_images_near_group"), "images")
    op.drop_column("images", "near_group")
