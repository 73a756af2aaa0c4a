"""Evaluations, robustness runs and the carry of stratified allocations in tables, not in events.

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

#: Kind of the events that held the estimates, by the table that holds them now.
KINDS = {"evaluations": "evaluation", "robustness_runs": "sensitivity"}


def upgrade() -> None:
    for table, kind in KINDS.items():
        op.create_table(
            table,
            sa.Column("event_id", sa.Integer(), nullable=False),
            sa.Column("estimates", sa.JSON(), nullable=False),
            sa.ForeignKeyConstraint(
                ["event_id"], ["events.id"], name=op.f(f"fk_{table}_event_id_events")
            ),
            sa.PrimaryKeyConstraint("event_id", name=op.f(f"pk_{table}")),
        )
        op.execute(
            f"INSERT INTO {table} (event_id, estimates) "
            f"SELECT id, detail FROM events WHERE kind = '{kind}'"
        )
    op.create_table(
        "allocation_carry",
        sa.Column("allocation", sa.String(length=20), nullable=False),
        sa.Column("tone", sa.String(length=10), nullable=False),
        sa.Column("carry", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("allocation", "tone", name=op.f("pk_allocation_carry")),
    )
    _, detail = _newest_push()
    rows = [
        {"allocation": allocation, "tone": tone, "carry": carry}
        for allocation, by_tone in detail.get("owed", {}).items()
        for tone, carry in by_tone.items()
    ]
    if rows:
        op.bulk_insert(_CARRY, rows)


def downgrade() -> None:
    # The program of schema 0005 reads all of this from the events.
    for table in KINDS:
        op.execute(
            f"UPDATE events SET detail = (SELECT estimates FROM {table} WHERE event_id = events.id) "
            f"WHERE id IN (SELECT event_id FROM {table})"
        )
        op.drop_table(table)
    owed: dict[str, dict[str, float]] = {}
    for row in op.get_bind().execute(sa.select(_CARRY)):
        owed.setdefault(row.allocation, {})[row.tone] = row.carry
    event_id, detail = _newest_push()
    if owed and detail.get("owed") != owed:
        changed = _EVENTS.update().where(_EVENTS.c.id == event_id)
        op.execute(changed.values(detail={**detail, "owed": owed}))
    op.drop_table("allocation_carry")


_EVENTS = sa.table("events", sa.column("id"), sa.column("kind"), sa.column("detail", sa.JSON()))
_CARRY = sa.table(
    "allocation_carry", sa.column("allocation"), sa.column("tone"), sa.column("carry", sa.Double())
)


def _newest_push() -> tuple[int | None, dict[str, Any]]:
    """Return the id and the detail of the newest push."""
    pushes = sa.select(_EVENTS.c.id, _EVENTS.c.detail).where(_EVENTS.c.kind == "push")
    row = op.get_bind().execute(pushes.order_by(_EVENTS.c.id.desc()).limit(1)).first()
    return (None, {}) if row is None else (row.id, row.detail)
