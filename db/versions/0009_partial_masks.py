"""Masks that are labelled in part, and masks that were drawn independently.

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As in 0005: other tables refer to these, so SQLite must add the columns where the tables are.
    op.execute("ALTER TABLE masks ADD COLUMN unlabelled INTEGER DEFAULT 0 NOT NULL")
    op.execute("ALTER TABLE masks ADD COLUMN independent BOOLEAN DEFAULT false NOT NULL")


def downgrade() -> None:
    # The program of the schema before takes a mask with unlabelled pixels for a damaged one.
    op.drop_column("masks", "independent")
    op.drop_column("masks", "unlabelled")
