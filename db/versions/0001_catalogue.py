"""The catalogue: datasets, images, masks, reviews, skips, subsets, model versions, events.

Revision ID: 0001
Revises:
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("licence", sa.String(length=200), nullable=True),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("name", name=op.f("uq_datasets_name")),
    )
    op.create_table(
        "model_versions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("file_hash", sa.String(length=64), nullable=False),
        sa.Column("backbone", sa.String(length=200), nullable=False),
        sa.Column("backbone_hash", sa.String(length=64), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("training_masks", sa.JSON(), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("protocol_version", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("name", name=op.f("uq_model_versions_name")),
    )
    op.create_table(
        "subsets",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("drawn_by", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subsets")),
        sa.UniqueConstraint("name", name=op.f("uq_subsets_name")),
    )
    op.create_table(
        "images",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("perceptual_hash", sa.String(length=16), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("in_place", sa.String(), nullable=True),
        sa.Column("tone", sa.String(length=10), nullable=False),
        sa.Column("tone_source", sa.String(length=200), nullable=True),
        sa.Column("fitzpatrick", sa.Integer(), nullable=True),
        sa.Column("malignant", sa.Boolean(), nullable=True),
        sa.Column("diagnosis", sa.String(length=200), nullable=True),
        sa.Column("patient", sa.String(length=200), nullable=True),
        sa.Column("lesion", sa.String(length=200), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.CheckConstraint(
            "state IN ('new', 'queued', 'prelabelled', 'in_labelling', 'submitted', 'accepted', 'rework', 'skipped')",
            name=op.f("ck_images_state"),
        ),
        sa.CheckConstraint(
            "tone IN ('I-II', 'III-IV', 'V-VI', 'unknown')", name=op.f("ck_images_tone")
        ),
        sa.CheckConstraint("fitzpatrick BETWEEN 1 AND 6", name=op.f("ck_images_fitzpatrick")),
        sa.CheckConstraint("width > 0 AND height > 0", name=op.f("ck_images_size")),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_images_dataset_id_datasets")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
        sa.UniqueConstraint("content_hash", name=op.f("uq_images_content_hash")),
    )
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_images_dataset_id"), ["dataset_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_images_name"), ["name"], unique=False)
        batch_op.create_index(batch_op.f("ix_images_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_images_tone"), ["tone"], unique=False)

    op.create_table(
        "events",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.String(length=40), nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=True),
        sa.Column("state_before", sa.String(length=20), nullable=True),
        sa.Column("state_after", sa.String(length=20), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_events_image_id_images")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_kind"), ["kind"], unique=False)

    op.create_table(
        "masks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("mapping", sa.String(length=10), nullable=False),
        sa.Column("classes", sa.JSON(), nullable=False),
        sa.Column("annotator", sa.String(length=200), nullable=True),
        sa.Column("model_version_id", sa.Integer(), nullable=True),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        sa.Column("protocol_version", sa.String(length=20), nullable=False),
        sa.Column("uncertainty", sa.Double(), nullable=True),
        sa.Column("origin", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.CheckConstraint("mapping IN ('same', 'stretched')", name=op.f("ck_masks_mapping")),
        sa.CheckConstraint(
            "(annotator IS NULL) <> (model_version_id IS NULL)", name=op.f("ck_masks_author")
        ),
        sa.CheckConstraint(
            "uncertainty IS NULL OR model_version_id IS NOT NULL", name=op.f("ck_masks_uncertainty")
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_masks_image_id_images")),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_masks_model_version_id_model_versions"),
        ),
        sa.ForeignKeyConstraint(["parent_id"], ["masks.id"], name=op.f("fk_masks_parent_id_masks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_masks")),
    )
    with op.batch_alter_table("masks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_masks_content_hash"), ["content_hash"], unique=False)
        batch_op.create_index(batch_op.f("ix_masks_image_id"), ["image_id"], unique=False)
        batch_op.create_index(
            batch_op.f("ix_masks_model_version_id"), ["model_version_id"], unique=False
        )
        batch_op.create_index("uq_masks_by_model", ["image_id", "model_version_id"], unique=True)
        batch_op.create_index(
            "uq_masks_by_person", ["image_id", "annotator", "content_hash"], unique=True
        )

    op.create_table(
        "skips",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("annotator", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.Column("reopened_at", sa.String(length=40), nullable=True),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_skips_image_id_images")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_skips")),
    )
    with op.batch_alter_table("skips", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_skips_image_id"), ["image_id"], unique=False)

    op.create_table(
        "sources",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.String(length=1000), nullable=False),
        sa.Column("name", sa.String(length=500), nullable=False),
        sa.Column("file_hash", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"], ["datasets.id"], name=op.f("fk_sources_dataset_id_datasets")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_sources_image_id_images")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
        sa.UniqueConstraint("dataset_id", "path", name=op.f("uq_sources_dataset_id_path")),
    )
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sources_image_id"), ["image_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_sources_name"), ["name"], unique=False)

    op.create_table(
        "subset_members",
        sa.Column("subset_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_subset_members_image_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["subset_id"], ["subsets.id"], name=op.f("fk_subset_members_subset_id_subsets")
        ),
        sa.PrimaryKeyConstraint("subset_id", "image_id", name=op.f("pk_subset_members")),
    )
    with op.batch_alter_table("subset_members", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_subset_members_image_id"), ["image_id"], unique=False)

    op.create_table(
        "acceptances",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("mask_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_acceptances_image_id_images")
        ),
        sa.ForeignKeyConstraint(
            ["mask_id"], ["masks.id"], name=op.f("fk_acceptances_mask_id_masks")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_acceptances")),
    )
    op.create_table(
        "reviews",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mask_id", sa.Integer(), nullable=False),
        sa.Column("reviewer", sa.String(length=200), nullable=False),
        sa.Column("verdict", sa.String(length=20), nullable=False),
        sa.Column("comment", sa.String(), nullable=True),
        sa.Column("created_at", sa.String(length=40), nullable=False),
        sa.ForeignKeyConstraint(["mask_id"], ["masks.id"], name=op.f("fk_reviews_mask_id_masks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
    )
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_reviews_mask_id"), ["mask_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("reviews", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_reviews_mask_id"))

    op.drop_table("reviews")
    op.drop_table("acceptances")
    with op.batch_alter_table("subset_members", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_subset_members_image_id"))

    op.drop_table("subset_members")
    with op.batch_alter_table("sources", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sources_name"))
        batch_op.drop_index(batch_op.f("ix_sources_image_id"))

    op.drop_table("sources")
    with op.batch_alter_table("skips", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_skips_image_id"))

    op.drop_table("skips")
    with op.batch_alter_table("masks", schema=None) as batch_op:
        batch_op.drop_index("uq_masks_by_person")
        batch_op.drop_index("uq_masks_by_model")
        batch_op.drop_index(batch_op.f("ix_masks_model_version_id"))
        batch_op.drop_index(batch_op.f("ix_masks_image_id"))
        batch_op.drop_index(batch_op.f("ix_masks_content_hash"))

    op.drop_table("masks")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_kind"))
        batch_op.drop_index(batch_op.f("ix_events_image_id"))

    op.drop_table("events")
    with op.batch_alter_table("images", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_images_tone"))
        batch_op.drop_index(batch_op.f("ix_images_state"))
        batch_op.drop_index(batch_op.f("ix_images_name"))
        batch_op.drop_index(batch_op.f("ix_images_dataset_id"))

    op.drop_table("images")
    op.drop_table("subsets")
    op.drop_table("model_versions")
    op.drop_table("datasets")
