"""What the ids of a dataset are unique within: its patients and its lesions.

Until now a patient's id was one person in all datasets; from now on ids belong to their dataset, unless
`ddiseg datasets set NAME --same-patients-as OTHER` says that two share their patients.

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # As in 0003: other tables refer to this one, so SQLite must add the columns where the table is.
    op.execute("ALTER TABLE datasets ADD COLUMN patient_scope VARCHAR(200)")
    op.execute("ALTER TABLE datasets ADD COLUMN lesions_per_patient BOOLEAN DEFAULT false NOT NULL")


def downgrade() -> None:
    # What is lost: which datasets share patients. The program of schema 0009 takes all to share them.
    op.execute("ALTER TABLE datasets DROP COLUMN lesions_per_patient")
    op.execute("ALTER TABLE datasets DROP COLUMN patient_scope")
