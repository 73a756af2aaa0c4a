"""How the file of a photograph lay before it was turned upright.

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # NULL in old rows: the next import of the same files fills it in.
    op.add_column("sources", sa.Column("orientation", sa.Integer(), nullable=True))


def downgrade() -> None:
    # What is lost: the orientations, which an import of the same files brings back.
    op.drop_column("sources", "orientation")
