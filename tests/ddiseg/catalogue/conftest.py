"""One image at work on a labelling server, and a catalogue with rows in every table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ddiseg.catalogue import (
    AnnotationPage,
    AnnotationVersion,
    Arm,
    Catalogue,
    JobKind,
    ModelKind,
    NewEstimate,
    NewModelVersion,
    NewTask,
    Purpose,
    Split,
)
from ddiseg.catalogue.batches import NewMember
from ddiseg.catalogue.comparisons import Comparison
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.evaluations import Compared
from ddiseg.catalogue.masks import ACCEPT
from ddiseg.catalogue.near_duplicates import ConfirmedPair
from ddiseg.catalogue.tables import ComparisonKind, Lease
from tests.ddiseg.catalogue.desk import ANNOTATOR, REVIEWER, Desk, NewDesk
from tests.ddiseg.rows import new_image, new_mask
from tests.postgres import POSTGRESQL


@pytest.fixture
def new_desk(request: pytest.FixtureRequest, database: str) -> Iterator[NewDesk]:
    """new_desk(3): images #1 to #3 in the hands of annotators; see `Desk`."""
    made: list[Desk] = []

    def make(images: int) -> Desk:
        if database == POSTGRESQL:
            made.append(Desk(Database(request.getfixturevalue("emptied_url")), images))
        else:
            made.append(Desk.in_memory(images))
        return made[-1]

    yield make
    for each in made:
        each.catalogue.close()


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """Image #1 in the hands of annotators."""
    return new_desk(1)


@pytest.fixture
def submitted(desk: Desk) -> int:
    """The number of an annotation whose mask is in review."""
    number = desk.submit(ANNOTATOR, "a")
    desk.pull()
    return number


@pytest.fixture
def accepted(desk: Desk, submitted: int) -> int:
    """The number of an annotation whose mask is accepted."""
    desk.review(REVIEWER, ACCEPT)
    return submitted


@pytest.fixture
def full(catalogue: Catalogue) -> Catalogue:
    """A catalogue with rows in every table."""
    dataset = catalogue.images.dataset("clinic")
    catalogue.images.add(
        dataset.id, [new_image(n, tone="I-II", patient="p") for n in range(1, 5)], "tester"
    )
    model = catalogue.models.add(
        NewModelVersion("f" * 64, "unet", "b" * 64, {"t": 100}, ["m"], {"iou": 0.5}, "1.0"), "t"
    )
    quality: dict[str, Any] = {"expected_iou": {"lesion": 0.625, "skin": 0.75}, "quality": 0.625}
    catalogue.masks.add_predictions(
        [new_mask(1, None, model_version_id=model.id, uncertainty=0.1, **quality)]
    )
    classifier = catalogue.models.add(
        NewModelVersion(
            *("c" * 64, "unet", "b" * 64, {"block": 3}, [], {}, "1.0"),
            kind=ModelKind.MALIGNANCY,
            training_images={"i": {"malignant": True, "validation": False}},
        ),
        "t",
    )
    catalogue.malignancy.add([NewEstimate(1, classifier.id, 0.25)])
    catalogue.splits.decide({1: Split.HOLDOUT})
    catalogue.comparisons.add([Comparison(1, 1, ComparisonKind.PREDICTION, 1.0, 1.0, 0.0)])
    catalogue.embeddings.add("b" * 64, {1: np.ones(3, np.float32)})
    catalogue.batches.store("week-1", [NewMember(3, True, "random")], {"size": 1}, "tester")
    catalogue.rounds.begin("tester", {"every": 10})
    catalogue.evaluations.add({"models": {}}, [Compared(1, 1, "t" * 64, 0.5)], "tester")
    catalogue.near_duplicates.describe({1: (b"s" * 72, b"p"), 2: (b"s" * 72, b"p")})
    catalogue.near_duplicates.add([1, 2], [ConfirmedPair(1, 2, 0.97, "cropped")])
    catalogue.jobs.request(JobKind.PULL)
    times = {"acquired_at": 1.0, "heartbeat_at": 2.0, "expires_at": 62.0}
    lease = Lease(name="round", owner="o", holder="process 7 on elsewhere", pid=7, **times)
    with catalogue._database.write() as session:
        session.add(lease)
    catalogue.masks.submit([new_mask(1, "anna")], reviewer="ben")
    catalogue.images.skip(2, "blurry", None, "anna")
    catalogue.subsets.store({"train": [1, 3]}, {"seed": 1}, "tester")
    project = catalogue.tasks.project("http://labels.example", Purpose.ANNOTATION)
    new = NewTask("key", 4, None, Arm.BARE, 8, 6)
    catalogue.tasks.plan(project.id, [new], "tester", {}, {"control": {"I-II": 0.2}})
    catalogue.robustness.add({"model": "fedd-1"}, "tester")
    received = AnnotationVersion(1, 7, "2026-01-01", ("anna",), mask=new_mask(4, "anna"))
    catalogue.tasks.receive(project.id, AnnotationPage([received], {1: {7}}))
    return catalogue
