"""The expected IoU of predictions, and an index by which the doubtful ones of a version come first.

Predictions from before have none: their uncertainty goes on to sort them.

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As in 0005: other tables refer to this one, so SQLite must add the columns where it is.
    op.execute("ALTER TABLE masks ADD COLUMN expected_iou JSON")
    double = sa.Double().compile(op.get_bind().dialect)
    op.execute(
        f"ALTER TABLE masks ADD COLUMN quality {double} CONSTRAINT ck_masks_quality CHECK "
        "(quality IS NULL OR (model_version_id IS NOT NULL AND quality BETWEEN 0 AND 1))"
    )
    # The new index begins with the same column, so that it replaces the one of before.
    op.create_index("ix_masks_by_quality", "masks", ["model_version_id", "quality", "image_id"])
    op.drop_index(op.f("ix_masks_model_version_id"), "masks")


def downgrade() -> None:
    op.create_index(op.f("ix_masks_model_version_id"), "masks", ["model_version_id"])
    op.drop_index("ix_masks_by_quality", "masks")
    op.drop_column("masks", "quality")
    op.drop_column("masks", "expected_iou")
