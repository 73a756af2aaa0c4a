"""Labelling: projects and tasks on a server, what came back, and the mask that waits for review.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("server", sa.String(length=500), nullable=False),
        sa.Column("purpose", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("remote_id", sa.Integer(), nullable=True),
        sa.Column("watermark", sa.String(length=40), nullable=True),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.CheckConstraint("purpose IN ('annotation', 'review')", name=op.f("ck_projects_purpose")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("server", "purpose", name=op.f("uq_projects_server_purpose")),
    )
    op.create_table(
        "submissions",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("mask_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_submissions_image_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["mask_id"], ["masks.id"], name=op.f("fk_submissions_mask_id_masks")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_submissions")),
    )
    op.create_table(
        "tasks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=32), nullable=False),
        sa.Column("mask_id", sa.Integer(), nullable=True),
        sa.Column("arm", sa.String(length=20), nullable=False),
        sa.Column("readers", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("media", sa.String(), nullable=True),
        sa.Column("remote_id", sa.Integer(), nullable=True),
        sa.Column("comment", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.Column("deleted_at", sa.String(length=40), nullable=True),
        sa.CheckConstraint(
            "arm IN ('painted', 'control', 'bare', 'unsampled')", name=op.f("ck_tasks_arm")
        ),
        sa.CheckConstraint("readers > 0 AND width > 0 AND height > 0", name=op.f("ck_tasks_sizes")),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_tasks_image_id_images")),
        sa.ForeignKeyConstraint(["mask_id"], ["masks.id"], name=op.f("fk_tasks_mask_id_masks")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_tasks_project_id_projects")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("project_id", "key", name=op.f("uq_tasks_project_id_key")),
    )
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tasks_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_tasks_remote_id"), ["remote_id"], unique=False)

    op.create_table(
        "annotations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("task_id", sa.Integer(), nullable=False),
        sa.Column("remote_id", sa.Integer(), nullable=False),
        sa.Column("updated_at", sa.String(length=40), nullable=False),
        sa.Column("people", sa.JSON(), nullable=False),
        sa.Column("outcome", sa.String(length=10), nullable=False),
        sa.Column("problem", sa.String(), nullable=True),
        sa.Column("mask_id", sa.Integer(), nullable=True),
        sa.Column("skip_id", sa.Integer(), nullable=True),
        sa.Column("review_id", sa.Integer(), nullable=True),
        sa.Column("lead_time", sa.Double(), nullable=True),
        sa.Column("conflicts", sa.Integer(), nullable=True),
        sa.Column("holes", sa.Integer(), nullable=True),
        sa.Column("changed", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.Column("deleted_at", sa.String(length=40), nullable=True),
        sa.CheckConstraint(
            "(outcome = 'refused') = (problem IS NOT NULL)", name=op.f("ck_annotations_problem")
        ),
        sa.CheckConstraint(
            "outcome IN ('mask', 'skip', 'verdict', 'refused')", name=op.f("ck_annotations_outcome")
        ),
        sa.ForeignKeyConstraint(
            ["mask_id"], ["masks.id"], name=op.f("fk_annotations_mask_id_masks")
        ),
        sa.ForeignKeyConstraint(
            ["review_id"], ["reviews.id"], name=op.f("fk_annotations_review_id_reviews")
        ),
        sa.ForeignKeyConstraint(
            ["skip_id"], ["skips.id"], name=op.f("fk_annotations_skip_id_skips")
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_annotations_task_id_tasks")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_annotations")),
        sa.UniqueConstraint(
            "task_id",
            "remote_id",
            "updated_at",
            name=op.f("uq_annotations_task_id_remote_id_updated_at"),
        ),
    )
    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_annotations_mask_id"), ["mask_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_annotations_task_id"), ["task_id"], unique=False)

    # Until now the newest mask by a person was the one that waited.
    op.execute(
        "INSERT INTO submissions (image_id, mask_id) "
        "SELECT images.id, MAX(masks.id) FROM images JOIN masks ON masks.image_id = images.id "
        "WHERE images.state = 'submitted' AND masks.annotator IS NOT NULL GROUP BY images.id"
    )


def downgrade() -> None:

    with op.batch_alter_table("annotations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_annotations_task_id"))
        batch_op.drop_index(batch_op.f("ix_annotations_mask_id"))

    op.drop_table("annotations")
    with op.batch_alter_table("tasks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tasks_remote_id"))
        batch_op.drop_index(batch_op.f("ix_tasks_image_id"))

    op.drop_table("tasks")
    op.drop_table("submissions")
    op.drop_table("projects")
