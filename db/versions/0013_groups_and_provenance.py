"""Groups of images, what versions learned from, and signatures in blocks: as tables to be joined.

All rows come from rows that there are. `fill` keeps a part of the images in memory at a time.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from ddiseg.catalogue.linking import IdScope, LinkedImages
from ddiseg.catalogue.signatures import BLOCK, packed

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

#: Rows of one insert.
_ROWS = 10_000


def upgrade() -> None:
    op.create_table(
        "group_links",
        sa.Column("key", sa.BigInteger(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_group_links_image_id_images")
        ),
        sa.PrimaryKeyConstraint("key", "image_id", name=op.f("pk_group_links")),
    )
    op.create_table(
        "image_groups",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("group_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["images.id"], name=op.f("fk_image_groups_image_id_images")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_image_groups")),
    )
    op.create_table(
        "signature_blocks",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("places", sa.LargeBinary(), nullable=False),
        sa.Column("signatures", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_signature_blocks")),
    )
    version = sa.ForeignKeyConstraint(
        ["model_version_id"],
        ["model_versions.id"],
        name=op.f("fk_training_masks_model_version_id_model_versions"),
    )
    op.create_table(
        "training_masks",
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        version,
        sa.PrimaryKeyConstraint("model_version_id", "content_hash", name=op.f("pk_training_masks")),
    )
    op.create_table(
        "training_images",
        sa.Column("model_version_id", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(length=64), nullable=False),
        sa.Column("validation", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["model_version_id"],
            ["model_versions.id"],
            name=op.f("fk_training_images_model_version_id_model_versions"),
        ),
        sa.PrimaryKeyConstraint(
            "model_version_id", "content_hash", name=op.f("pk_training_images")
        ),
    )
    connection = op.get_bind()
    _fill_groups(connection)
    _fill_signatures(connection)
    _fill_training(connection)
    # Indexes last: filling is faster without them.
    op.create_index(op.f("ix_group_links_image_id"), "group_links", ["image_id"])
    op.create_index(op.f("ix_image_groups_group_id"), "image_groups", ["group_id"])
    op.create_index(op.f("ix_training_masks_content_hash"), "training_masks", ["content_hash"])


def downgrade() -> None:
    # Nothing is lost: all of it can be computed again.
    for table in (
        "training_images",
        "training_masks",
        "signature_blocks",
        "image_groups",
        "group_links",
    ):
        op.drop_table(table)


def _insert(connection: sa.Connection, table: str, rows: Iterator[dict[str, Any]]) -> None:
    part: list[dict[str, Any]] = []
    for row in rows:
        part.append(row)
        if len(part) == _ROWS:
            _insert_part(connection, table, part)
            part = []
    if part:
        _insert_part(connection, table, part)


def _insert_part(connection: sa.Connection, table: str, rows: list[dict[str, Any]]) -> None:
    target = sa.table(table, *(sa.column(name) for name in rows[0]))
    connection.execute(target.insert(), rows)


def _fill_groups(connection: sa.Connection) -> None:
    datasets = connection.execute(
        sa.text("SELECT id, name, patient_scope, lesions_per_patient FROM datasets")
    )
    scopes = {row[0]: IdScope(row[2] or row[1], bool(row[3])) for row in datasets}
    linked = LinkedImages(scopes)
    query = sa.text(
        "SELECT id, dataset_id, perceptual_hash, near_group, patient, lesion FROM images ORDER BY id"
    )
    images = connection.execute(query.execution_options(yield_per=_ROWS))
    for row in images:
        linked.add(*row)
    _insert(connection, "group_links", ({"key": k, "image_id": i} for k, i in linked.links()))
    _insert(
        connection, "image_groups", ({"image_id": i, "group_id": g} for i, g in linked.groups())
    )


def _fill_signatures(connection: sa.Connection) -> None:
    last = connection.scalar(sa.text("SELECT max(image_id) FROM thumbnails")) or 0
    query = sa.text(
        "SELECT image_id, signature FROM thumbnails WHERE image_id >= :first AND image_id < :end "
        "ORDER BY image_id"
    )
    for number in range(last // BLOCK + 1):
        values = {"first": number * BLOCK, "end": (number + 1) * BLOCK}
        found = {row[0]: bytes(row[1]) for row in connection.execute(query, values)}
        if found:
            places, signatures = packed(found)
            row = {"id": number, "places": places, "signatures": signatures}
            _insert_part(connection, "signature_blocks", [row])


def _fill_training(connection: sa.Connection) -> None:
    table = sa.table(
        "model_versions",
        sa.column("id", sa.Integer),
        sa.column("kind", sa.String),
        sa.column("training_masks", sa.JSON),
        sa.column("training_images", sa.JSON),
        sa.column("metrics", sa.JSON),
    )
    ids = connection.execute(sa.select(table.c.id).order_by(table.c.id)).scalars().all()
    for version in ids:  # one at a time: each names all its masks
        row = connection.execute(sa.select(table).where(table.c.id == version)).one()
        masks = dict.fromkeys(row.training_masks)
        _insert(
            connection,
            "training_masks",
            ({"model_version_id": version, "content_hash": digest} for digest in masks),
        )
        validation = row.metrics.get("validation")
        members = validation.get("members", []) if isinstance(validation, dict) else []
        images = dict.fromkeys(members, True)
        if row.kind == "malignancy":
            images = {d: bool(facts.get("validation")) for d, facts in row.training_images.items()}
        _insert(
            connection,
            "training_images",
            (
                {"model_version_id": version, "content_hash": digest, "validation": flag}
                for digest, flag in images.items()
            ),
        )
