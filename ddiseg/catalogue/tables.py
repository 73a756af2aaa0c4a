"""The tables of the catalogue. Their history is in `db/`; a test keeps both the same.

No code outside `ddiseg.catalogue` opens a transaction; rows that leave it are detached and are
only read.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Double,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from ddiseg.catalogue.lifecycle import State
from ddiseg.catalogue.records import ClassifierRecord, GateDecision, StoredTraining

#: Constraint names are the same on every database, so that migrations can find them.
NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def now() -> str:
    """The time in UTC as text that sorts, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012 - SQLAlchemy's API


class Timestamped:
    """A row that knows when it was stored."""

    created_at: Mapped[str] = mapped_column(String(40), default=now)


class Dataset(Timestamped, Base):
    """A set of photographs from one source, under one licence."""

    __tablename__ = "datasets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    licence: Mapped[str | None] = mapped_column(String(200))
    source: Mapped[str | None]  #: URL or citation
    #: Its images were made by code and show no person.
    synthetic: Mapped[bool] = mapped_column(default=False, server_default=text("false"))
    #: Datasets of one scope share their patients; None: its own name. See `catalogue.grouping`.
    patient_scope: Mapped[str | None] = mapped_column(String(200))
    #: Its lesions are numbered anew for each patient.
    lesions_per_patient: Mapped[bool] = mapped_column(default=False, server_default=text("false"))


class Image(Timestamped, Base):
    """One photograph, whatever the number of files that hold it."""

    __tablename__ = "images"
    __table_args__ = (
        CheckConstraint("tone IN ('I-II', 'III-IV', 'V-VI', 'unknown')", name="tone"),
        CheckConstraint("fitzpatrick BETWEEN 1 AND 6", name="fitzpatrick"),
        CheckConstraint("width > 0 AND height > 0", name="size"),
        CheckConstraint(f"state IN ({', '.join(repr(s.value) for s in State)})", name="state"),
        Index("ix_images_counted", "dataset_id", "tone", "state"),  # holds what `status` counts by
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    name: Mapped[str] = mapped_column(String(500), index=True)  #: file name of its first source
    #: of the oriented RGB pixels
    content_hash: Mapped[str] = mapped_column(String(64), unique=True)
    perceptual_hash: Mapped[str] = mapped_column(String(16))  #: 64-bit DCT hash, hexadecimal
    #: The oldest image of its group of near-duplicates, often itself; None: not compared yet.
    near_group: Mapped[int | None] = mapped_column(index=True)
    width: Mapped[int]  #: pixels, after EXIF orientation
    height: Mapped[int]
    in_place: Mapped[str | None]  #: absolute path where the photograph is referenced, not copied
    tone: Mapped[str] = mapped_column(String(10), default="unknown", index=True)
    #: e.g. "ddi_metadata.csv: skin_tone"
    tone_source: Mapped[str | None] = mapped_column(String(200))
    fitzpatrick: Mapped[int | None]  #: exact type 1-6, where known
    malignant: Mapped[bool | None]
    #: e.g. "metadata.csv: malignant"; "diagnosis: ..." where it was derived from the diagnosis; None:
    #: not recorded.
    malignant_source: Mapped[str | None] = mapped_column(String(200))
    diagnosis: Mapped[str | None] = mapped_column(String(200))
    patient: Mapped[str | None] = mapped_column(String(200))
    lesion: Mapped[str | None] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(20), default=State.NEW.value, index=True)


class GroupLink(Base):
    """A patient or lesion of an image, as a number: images with the same one are of one group."""

    __tablename__ = "group_links"

    key: Mapped[int] = mapped_column(BigInteger, primary_key=True)  #: see `grouping.link_keys`
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)


class ImageGroup(Base):
    """The group that an image stays together with; see `ddiseg.catalogue.groups`."""

    __tablename__ = "image_groups"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    group_id: Mapped[int] = mapped_column(
        index=True
    )  #: the oldest image of the group, often itself


class SignatureBlock(Base):
    """The signatures of up to 1,024 images with neighbouring ids, to be searched fast.

    They are those of the thumbnails, whose rows are too wide to be read for each import.
    """

    __tablename__ = "signature_blocks"

    id: Mapped[int] = mapped_column(primary_key=True)  #: image ids from `id` * 1,024 on
    places: Mapped[bytes] = mapped_column(LargeBinary)  #: (n,) uint16, image id modulo 1,024
    signatures: Mapped[bytes] = mapped_column(LargeBinary)  #: (n, 72) uint8


class Thumbnail(Base):
    """What an image looks like, small; see `ddiseg.near_duplicates`."""

    __tablename__ = "thumbnails"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    signature: Mapped[bytes] = mapped_column(LargeBinary)  #: 72 numbers, the same for all turns
    pixels: Mapped[bytes] = mapped_column(LargeBinary)  #: 48 x 48 grey levels


class NearDuplicate(Base):
    """Two images that were made from the same picture."""

    __tablename__ = "near_duplicates"

    first_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    second_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    correlation: Mapped[float] = mapped_column(Double)  #: of the gradients of their thumbnails
    change: Mapped[str] = mapped_column(String(10))  #: same, cropped or turned


class Source(Timestamped, Base):
    """A file that an image was read from. Exact duplicates are several sources of one image."""

    __tablename__ = "sources"
    __table_args__ = (UniqueConstraint("dataset_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("datasets.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    path: Mapped[str] = mapped_column(String(1000))  #: relative to the imported folder, with /
    name: Mapped[str] = mapped_column(String(500), index=True)  #: last part of the path
    file_hash: Mapped[str] = mapped_column(String(64))  #: SHA-256 of the file's bytes
    size: Mapped[int] = mapped_column(BigInteger)  #: bytes
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    #: EXIF orientation of the file, 1 to 8, before it was turned upright; None: not recorded.
    orientation: Mapped[int | None]


class ModelKind(StrEnum):
    """What a model version is for."""

    SEGMENTATION = "segmentation"  #: predicts masks
    MALIGNANCY = "malignancy"  #: estimates malignancy: research output, not a diagnosis


class ModelVersion(Timestamped, Base):
    """Probes or a classifier after one training, with everything that made them."""

    __tablename__ = "model_versions"
    __table_args__ = (
        CheckConstraint(f"kind IN ({', '.join(repr(k.value) for k in ModelKind)})", name="kind"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    file_hash: Mapped[str] = mapped_column(String(64))
    backbone: Mapped[str] = mapped_column(String(200))
    backbone_hash: Mapped[str] = mapped_column(String(64))
    settings: Mapped[dict[str, Any]]
    training_masks: Mapped[list[Any]]  #: content hashes
    metrics: Mapped[dict[str, Any]]
    protocol_version: Mapped[str] = mapped_column(String(20))
    kind: Mapped[str] = mapped_column(String(20), server_default=ModelKind.SEGMENTATION.value)
    #: Of a classifier: its images, {"malignant": bool, "validation": bool} by content hash.
    training_images: Mapped[dict[str, Any]] = mapped_column(server_default="{}")
    #: The gate's decision, see `decision`; None where there was none.
    gate: Mapped[dict[str, Any] | None]

    @property
    def training(self) -> StoredTraining:
        """How the training went; of a classifier only what trainings of both kinds have."""
        other = () if self.kind == ModelKind.SEGMENTATION else ("validation",)
        return StoredTraining.from_json({k: v for k, v in self.metrics.items() if k not in other})

    @property
    def classifier_training(self) -> ClassifierRecord:
        """How the training of a classifier went."""
        return ClassifierRecord.from_json(self.metrics)

    @property
    def decision(self) -> GateDecision | None:
        """The gate's decision; None where there was none."""
        return None if self.gate is None else GateDecision.from_json(self.gate)


class TrainingMask(Base):
    """The pixels of a mask that a version learned from: `ModelVersion.training_masks`, to be joined."""

    __tablename__ = "training_masks"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    content_hash: Mapped[str] = mapped_column(String(64), primary_key=True, index=True)


class TrainingImage(Base):
    """An image that a classifier learned from, or of the validation split of a version of any kind."""

    __tablename__ = "training_images"

    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    content_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    validation: Mapped[bool]


class Promotion(Timestamped, Base):
    """The promotion of a model version; the newest of a kind names the current model."""

    __tablename__ = "promotions"

    id: Mapped[int] = mapped_column(primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    actor: Mapped[str] = mapped_column(String(200))
    why: Mapped[str]
    forced: Mapped[bool]  #: by a person, whatever the gate decided


class Split(StrEnum):
    """What an image with an accepted mask is used for. It never changes for an image."""

    TRAINING = "training"  #: probes learn from it
    HOLDOUT = "held_out"  #: the gate compares models on it; nothing learns from it
    EXCLUDED = "neither"  #: of one group with images of both other splits


class ImageSplit(Timestamped, Base):
    """The split of an image, decided when the gate first saw its accepted mask."""

    __tablename__ = "sides"
    __table_args__ = (
        CheckConstraint(f"side IN ({', '.join(repr(s.value) for s in Split)})", name="side"),
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    split: Mapped[str] = mapped_column("side", String(10))


class Embedding(Base):
    """Pooled activations of a backbone for an image."""

    __tablename__ = "descriptors"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    #: Its space; only embeddings of one space can be compared (`ddiseg.catalogue.embeddings`).
    space: Mapped[str] = mapped_column(String(64), primary_key=True)
    vector: Mapped[bytes] = mapped_column(LargeBinary)  #: (D,) float32, little-endian


class MalignancyEstimate(Timestamped, Base):
    """The malignancy estimate of an image by a model version: research output, not a diagnosis."""

    __tablename__ = "malignancy_estimates"
    __table_args__ = (CheckConstraint("probability BETWEEN 0 AND 1", name="probability"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    model_version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    probability: Mapped[float]


class Mask(Timestamped, Base):
    """An immutable mask: drawn by a person or predicted by a model version."""

    __tablename__ = "masks"
    __table_args__ = (
        CheckConstraint("(annotator IS NULL) <> (model_version_id IS NULL)", name="author"),
        CheckConstraint("mapping IN ('same', 'stretched')", name="mapping"),
        CheckConstraint("uncertainty IS NULL OR model_version_id IS NOT NULL", name="uncertainty"),
        CheckConstraint(
            "quality IS NULL OR (model_version_id IS NOT NULL AND quality BETWEEN 0 AND 1)",
            name="quality",
        ),
        Index("uq_masks_by_person", "image_id", "annotator", "content_hash", unique=True),
        Index("uq_masks_by_model", "image_id", "model_version_id", unique=True),
        # The doubtful predictions of a version first, without a look at the others.
        Index("ix_masks_by_quality", "model_version_id", "quality", "image_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    content_hash: Mapped[str] = mapped_column(String(64), index=True)  #: of the pixels
    width: Mapped[int]
    height: Mapped[int]
    #: "stretched": the photograph was stretched to this size
    mapping: Mapped[str] = mapped_column(String(10))
    classes: Mapped[list[Any]]  #: class ids that its author could use
    annotator: Mapped[str | None] = mapped_column(String(200))
    model_version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("masks.id"))
    protocol_version: Mapped[str] = mapped_column(String(20))
    uncertainty: Mapped[float | None]  #: mean mutual information of the ensemble, nats a pixel
    #: Expected IoU by class name; None for masks of people, and where probes have no calibration.
    expected_iou: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    #: The lowest expected IoU of a predicted lesion, marker or ruler, to sort by.
    quality: Mapped[float | None]
    origin: Mapped[str | None]  #: its file or task
    #: Pixels without a class, at its own size; they count neither in training nor in scores.
    unlabelled: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    #: Drawn independently of other people's masks of the image, in a tool whose file says so. What a
    #: labelling server sent is known by its annotations instead.
    independent: Mapped[bool] = mapped_column(default=False, server_default=text("false"))


class ComparisonKind(StrEnum):
    """Why two masks of an image were compared."""

    PREDICTION = "prediction"  #: what a person accepted, and what the model had predicted
    READING = "reading"  #: masks that two people drew independently


class MaskComparison(Base):
    """How far two masks of an image agree: computed once, since masks never change.

    All values are None where the masks can't be compared, such as where one labels one class only.
    """

    __tablename__ = "mask_comparisons"
    __table_args__ = (
        CheckConstraint(
            f"kind IN ({', '.join(repr(k.value) for k in ComparisonKind)})", name="kind"
        ),
    )

    #: The accepted mask, or the older reading.
    mask_id: Mapped[int] = mapped_column(ForeignKey("masks.id"), primary_key=True)
    other_id: Mapped[int] = mapped_column(ForeignKey("masks.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(10), primary_key=True)
    lesion_dice: Mapped[float | None] = mapped_column(Double)  #: None where neither has a lesion
    mean_dice: Mapped[float | None] = mapped_column(Double)  #: over the classes of either mask
    changed: Mapped[float | None] = mapped_column(Double)  #: share of the labelled pixels


class Review(Timestamped, Base):
    """A second person's verdict on a mask, which may be reopened and reviewed again."""

    __tablename__ = "reviews"

    id: Mapped[int] = mapped_column(primary_key=True)
    mask_id: Mapped[int] = mapped_column(ForeignKey("masks.id"), index=True)
    reviewer: Mapped[str] = mapped_column(String(200))
    verdict: Mapped[str] = mapped_column(String(20))
    comment: Mapped[str | None]


class Acceptance(Base):
    """The accepted mask of an image; the row exists while the image is accepted."""

    __tablename__ = "acceptances"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    mask_id: Mapped[int] = mapped_column(ForeignKey("masks.id"))


class Submission(Base):
    """The mask that waits for review; the row exists while its image is submitted."""

    __tablename__ = "submissions"

    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    mask_id: Mapped[int] = mapped_column(ForeignKey("masks.id"))


class Skip(Timestamped, Base):
    """The reason why an image can't be labelled, and by whom."""

    __tablename__ = "skips"

    id: Mapped[int] = mapped_column(primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    reason: Mapped[str] = mapped_column(String(40))
    note: Mapped[str | None]
    annotator: Mapped[str] = mapped_column(String(200))
    reopened_at: Mapped[str | None] = mapped_column(String(40))


class Subset(Timestamped, Base):
    """A named set of images, and how it was sampled."""

    __tablename__ = "subsets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    drawn_by: Mapped[dict[str, Any]]  #: preset, or seed and sizes


class SubsetMember(Base):
    __tablename__ = "subset_members"

    subset_id: Mapped[int] = mapped_column(ForeignKey("subsets.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)


class BatchOrigin(StrEnum):
    """Who sampled a batch, and so who gives it to annotators."""

    PERSON = "person"  #: gives it out by a command, with options of their own
    ROUND = "round"  #: of the loop, which gives it out


class Batch(Timestamped, Base):
    """Images sampled to be labelled next, and how."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint(
            f"origin IN ({', '.join(repr(o.value) for o in BatchOrigin)})", name="origin"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    drawn_by: Mapped[dict[str, Any]]
    closed_at: Mapped[str | None] = mapped_column(String(40))
    origin: Mapped[str] = mapped_column(
        String(10), default=BatchOrigin.PERSON.value, server_default=BatchOrigin.PERSON.value
    )


class BatchMember(Base):
    __tablename__ = "batch_members"

    batch_id: Mapped[int] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True, index=True)
    position: Mapped[int]  #: in the order of sampling
    random: Mapped[bool]  #: sampled at random: a test set without selection bias
    reason: Mapped[str]


class Purpose(StrEnum):
    """What people do in a project."""

    ANNOTATION = "annotation"
    REVIEW = "review"


class Arm(StrEnum):
    """What a person is shown when they open a task."""

    #: Shows a mask: the model's, or for review and rework a person's. The stored value is kept.
    PREDICTED = "painted"
    CONTROL = "control"  #: nothing, though there is a prediction: measures what showing it changes
    BARE = "bare"  #: nothing, as there was no prediction
    UNSAMPLED = "unsampled"  #: a submitted mask that a spot check leaves out; never sent


class Project(Timestamped, Base):
    """A project of a labelling server that this catalogue fills and empties."""

    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("server", "purpose"),
        CheckConstraint("purpose IN ('annotation', 'review')", name="purpose"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    server: Mapped[str] = mapped_column(String(500))  #: URL of a team's; "embedded" for our own
    purpose: Mapped[str] = mapped_column(String(20))
    key: Mapped[str] = mapped_column(String(32))  #: marks the project there
    remote_id: Mapped[int | None]  #: the server's number of the project
    watermark: Mapped[str | None] = mapped_column(String(40))  #: newest change seen, server's time


def _on_server() -> dict[str, Any]:
    """Return the condition of an index of the tasks that a labelling server has, for each database."""
    condition = text("remote_id IS NOT NULL AND deleted_at IS NULL")
    return {"sqlite_where": condition, "postgresql_where": condition}


class Task(Timestamped, Base):
    """An image (or, for review, a mask) as it is given to people on a labelling server.

    Stored before it is sent, so that a run after a stopped one can find it.
    """

    __tablename__ = "tasks"
    __table_args__ = (
        UniqueConstraint("project_id", "key"),
        CheckConstraint("arm IN ('painted', 'control', 'bare', 'unsampled')", name="arm"),
        CheckConstraint("readers > 0 AND width > 0 AND height > 0", name="sizes"),
        Index("ix_tasks_on_server", "project_id", "image_id", "readers", **_on_server()),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("projects.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), index=True)
    key: Mapped[str] = mapped_column(String(32))  #: part of the task's data there
    mask_id: Mapped[int | None] = mapped_column(ForeignKey("masks.id"))  #: shown or withheld
    arm: Mapped[str] = mapped_column(String(20))
    readers: Mapped[int] = mapped_column(default=1)  #: people who annotate it independently
    width: Mapped[int]  #: of the copy that was sent, pixels
    height: Mapped[int]
    media: Mapped[str | None]  #: where the server keeps the copy
    remote_id: Mapped[int | None] = mapped_column(index=True)  #: the server's number of the task
    comment: Mapped[str | None]  #: the reviewer's, shown there
    #: when it was found missing on the server
    deleted_at: Mapped[str | None] = mapped_column(String(40))


class Annotation(Timestamped, Base):
    """One version of an annotation of a task, and what it was stored as."""

    __tablename__ = "annotations"
    __table_args__ = (
        UniqueConstraint("task_id", "remote_id", "updated_at"),
        CheckConstraint("outcome IN ('mask', 'skip', 'verdict', 'refused')", name="outcome"),
        CheckConstraint("(outcome = 'refused') = (problem IS NOT NULL)", name="problem"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(ForeignKey("tasks.id"), index=True)
    remote_id: Mapped[int]  #: the server's number of the annotation
    updated_at: Mapped[str] = mapped_column(String(40))  #: server's time
    people: Mapped[list[Any]]  #: who started it and who changed it last
    outcome: Mapped[str] = mapped_column(String(10))
    problem: Mapped[str | None]  #: why it was refused
    mask_id: Mapped[int | None] = mapped_column(ForeignKey("masks.id"), index=True)
    skip_id: Mapped[int | None] = mapped_column(ForeignKey("skips.id"))
    review_id: Mapped[int | None] = mapped_column(ForeignKey("reviews.id"))
    lead_time: Mapped[float | None]  #: seconds, as the server counts them
    conflicts: Mapped[int | None]  #: pixels with two classes from two edits
    holes: Mapped[int | None]  #: pixels without a class
    changed: Mapped[int | None]  #: pixels that differ from what was shown
    #: when it was found missing on the server
    deleted_at: Mapped[str | None] = mapped_column(String(40))


class Round(Base):
    """One round of the loop, with the steps that it has done."""

    __tablename__ = "rounds"
    __table_args__ = (CheckConstraint("outcome IN ('done', 'failed')", name="outcome"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    actor: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[str] = mapped_column(String(40), default=now)
    ended_at: Mapped[str | None] = mapped_column(String(40))
    outcome: Mapped[str | None] = mapped_column(String(10))  #: None: running, or broken off
    steps: Mapped[list[Any]]  #: {"step": name, "said": one line, "seconds": float}
    #: The options that it ran with, see `ddiseg.loop.options.RoundOptions`; None: not recorded.
    settings: Mapped[dict[str, Any] | None]


class JobKind(StrEnum):
    """What the labelling server, or a person on it, asked for."""

    PULL = "pull"  #: an annotation was submitted: pull it
    REFRESH = "refresh"  #: train now, due or not
    #: Predict: predictions were asked for that do not exist. The stored value is kept.
    PREDICT = "paint"


class Lease(Base):
    """The right to do what one process does at a time; see `ddiseg.catalogue.leases`."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    owner: Mapped[str] = mapped_column(String(36))  #: UUID of this holding
    holder: Mapped[str]  #: process and host, for people
    machine: Mapped[str | None] = mapped_column(String(200))  #: on which `pid` can be looked up
    pid: Mapped[int]
    started: Mapped[str | None] = mapped_column(String(100))  #: of the process, opaque
    acquired_at: Mapped[float] = mapped_column(Double)  #: seconds since 1970, the database's clock
    heartbeat_at: Mapped[float] = mapped_column(Double)
    expires_at: Mapped[float] = mapped_column(Double)


class Job(Base):
    """Work that a server accepted for its worker; at most one of each kind waits.

    A job is never started twice: one that was broken off ends, and is requested as a new row.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(f"kind IN ({', '.join(repr(k.value) for k in JobKind)})", name="kind"),
        Index(
            "uq_jobs_waiting",
            "kind",
            unique=True,
            sqlite_where=text("started_at IS NULL"),
            postgresql_where=text("started_at IS NULL"),
        ),
        {"sqlite_autoincrement": True},  # no id is given out twice
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    requested_at: Mapped[str] = mapped_column(String(40), default=now)
    started_at: Mapped[str | None] = mapped_column(String(40))
    ended_at: Mapped[str | None] = mapped_column(String(40))
    problem: Mapped[str | None]  #: why it failed
    #: of the lease of the server that began it
    owner: Mapped[str | None] = mapped_column(String(36))


class Event(Base):
    """One thing that happened; stored in the transaction that made it true, never changed."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[str] = mapped_column(String(40), default=now)
    kind: Mapped[str] = mapped_column(String(40), index=True)
    actor: Mapped[str] = mapped_column(String(200))
    image_id: Mapped[int | None] = mapped_column(ForeignKey("images.id"), index=True)
    state_before: Mapped[str | None] = mapped_column(String(20))
    state_after: Mapped[str | None] = mapped_column(String(20))
    detail: Mapped[dict[str, Any]]


class EvaluatedImage(Base):
    """A prediction of an image and the true mask that an evaluation compared it with.

    The truth is only a file in the store, no mask of the image: nobody can accept it and nothing
    learns from it.
    """

    __tablename__ = "evaluated_images"

    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("images.id"), primary_key=True)
    mask_id: Mapped[int] = mapped_column(ForeignKey("masks.id"))  #: the prediction
    truth_hash: Mapped[str] = mapped_column(String(64))  #: of the pixels, at the photograph's size
    lesion_iou: Mapped[float | None]  #: None where neither has a lesion, or the truth could not


class Evaluation(Base):
    """The estimates of an evaluation, see `ddiseg.catalogue.records.EvaluationRecord`."""

    __tablename__ = "evaluations"

    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), primary_key=True)
    estimates: Mapped[dict[str, Any]]


class RobustnessRun(Base):
    """The estimates of a robustness run, see `ddiseg.catalogue.records.RobustnessRecord`."""

    __tablename__ = "robustness_runs"

    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"), primary_key=True)
    estimates: Mapped[dict[str, Any]]


class AllocationCarry(Base):
    """The images that a stratified allocation lacks so far of a tone; negative where it is ahead."""

    __tablename__ = "allocation_carry"

    allocation: Mapped[str] = mapped_column(String(20), primary_key=True)
    tone: Mapped[str] = mapped_column(String(10), primary_key=True)
    carry: Mapped[float]


#: All tables, those first that others refer to.
TABLES: list[Table] = Base.metadata.sorted_tables
