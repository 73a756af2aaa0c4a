"""Synthetic datasets, who drew a batch, settings of a round, evaluated images, origin of malignancy.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

#: The licence that `ddiseg demo` gave its phantoms, and no other program gives.
LICENCE_OF_PHANTOMS = "CC0-1.0 (rendered by code, shows no person)"

#: The names that rounds gave the batches that they drew.
NAME_BY_A_ROUND = re.compile(r"auto-\d+")


def upgrade() -> None:
    # As in 0003: other tables refer to these, so SQLite must add the columns where the tables are.
    op.execute("ALTER TABLE datasets ADD COLUMN synthetic BOOLEAN DEFAULT false NOT NULL")
    op.execute(
        "ALTER TABLE batches ADD COLUMN origin VARCHAR(10) DEFAULT 'person' NOT NULL "
        "CONSTRAINT ck_batches_origin CHECK (origin IN ('person', 'round'))"
    )
    op.execute("ALTER TABLE rounds ADD COLUMN settings JSON")
    op.execute("ALTER TABLE images ADD COLUMN malignant_source VARCHAR(200)")
    op.create_table(
        "evaluated_images",
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("mask_id", sa.Integer(), nullable=False),
        sa.Column("truth_hash", sa.String(length=64), nullable=False),
        sa.Column("lesion_iou", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["event_id"], ["events.id"], name=op.f("fk_evaluated_images_event_id_events")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_evaluated_images_image_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["mask_id"], ["masks.id"], name=op.f("fk_evaluated_images_mask_id_masks")
        ),
        sa.PrimaryKeyConstraint("event_id", "image_id", name=op.f("pk_evaluated_images")),
    )
    datasets = sa.table("datasets", sa.column("licence"), sa.column("synthetic", sa.Boolean()))
    op.execute(
        datasets.update().where(datasets.c.licence == LICENCE_OF_PHANTOMS).values(synthetic=True)
    )
    batches = sa.table("batches", sa.column("id"), sa.column("origin"))
    if drawn := _drawn_by_rounds(op.get_bind()):
        op.execute(batches.update().where(batches.c.id.in_(drawn)).values(origin="round"))


def _drawn_by_rounds(connection: sa.Connection) -> list[int]:
    """Ids of the batches that rounds drew, as far as the record tells.

    The step of a round says what it drew. A round that was broken off may have drawn without saying
    so, but nothing tells when it ended: such a batch counts as a person's, whatever its name. That
    loses nothing, as rounds leave the batches of people alone.
    """
    batches = sa.table("batches", *map(sa.column, ("id", "name")))
    rounds = sa.table("rounds", sa.column("id"), sa.column("steps", sa.JSON()))
    ran = connection.execute(sa.select(rounds).order_by(rounds.c.id)).all()
    said = [s["said"] for each in ran for s in each.steps if s["step"] == "draw"]
    named = {text.split(":", 1)[0] for text in said if re.match(r"\S+: \d+ images", text)}
    return [
        batch.id
        for batch in connection.execute(sa.select(batches))
        if NAME_BY_A_ROUND.fullmatch(batch.name) and batch.name in named
    ]


def downgrade() -> None:
    # What is lost: which predictions and truths the evaluations compared, and where malignancy came
    # from. The program of schema 0004 goes by names and texts again.
    op.drop_table("evaluated_images")
    op.drop_column("images", "malignant_source")
    op.drop_column("rounds", "settings")
    op.drop_column("batches", "origin")
    op.drop_column("datasets", "synthetic")
