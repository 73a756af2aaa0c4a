"""A workspace, a scripted Label Studio, and people at work on it in their browsers."""

from __future__ import annotations

import copy
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from numpy.typing import NDArray
from sqlalchemy import text

from annotation_protocol import load_protocol
from ddiseg import images, masks
from ddiseg.catalogue import Arm, Details, NewImage, NewMask, NewModelVersion, Purpose
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.tables import Annotation, Image, Mask, Task
from ddiseg.errors import ServerError
from ddiseg.labelstudio.connection import TOKEN_VARIABLE, Connection, connect_team
from ddiseg.labelstudio.folder import Folder
from ddiseg.labelstudio.pull import Pulled, pull
from ddiseg.labelstudio.push import Pushed, PushOptions, push
from ddiseg.labelstudio.review import PushedReviews, push_reviews
from ddiseg.labelstudio.task_payload import KEY
from ddiseg.masks import brush_rle
from ddiseg.outcomes import Outcome
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.fake_label_studio import FakeLabelStudio, Fault, shapes

WIDTH, HEIGHT = 8, 6
ANNOTATOR, SECOND, REVIEWER = (
    f"{name}@example.org" for name in ("annotator-1", "annotator-2", "reviewer-1")
)

ADDED, UNCHANGED, REPAIRED, REFUSED = (outcome.value for outcome in Outcome)

#: (H, W) bool.
Region: TypeAlias = NDArray[np.bool_]
Result: TypeAlias = list[dict[str, Any]]
Done: TypeAlias = Pushed | Pulled | PushedReviews


class Studio:
    """All that a test needs; pictures are WIDTH x HEIGHT unless it asks for others.

    With `embedded` pictures are files below the server's document root, else they are uploaded.
    """

    def __init__(
        self, workspace: Workspace, server: FakeLabelStudio, *, embedded: bool = True
    ) -> None:
        self.workspace, self.server = workspace, server
        self.catalogue = workspace.catalogue
        media = Folder(workspace.root).media if embedded else None
        self.connection = Connection(server.url, server.token, embedded=embedded, media=media)
        self.people = {name: server.add_user(name) for name in (ANNOTATOR, SECOND, REVIEWER)}
        self._dataset = self.catalogue.images.dataset("clinic").id
        self._models = 0

    def add_images(
        self,
        n: int = 1,
        tone: str = "I-II",
        size: tuple[int, int] = (WIDTH, HEIGHT),
        in_place: Path | None = None,
    ) -> list[Image]:
        """New photographs, (width, height); the first of them in the file `in_place`, if that is given."""
        rows = []
        there = len(self.catalogue.images.select())
        for number in range(there + 1, there + n + 1):
            pixels = photograph(number, size)
            digest, data = images.content_hash(pixels), images.encode_png(pixels)
            if in_place is None:
                self.workspace.store.put(Kind.IMAGE, digest, data)
            else:
                in_place.write_bytes(data)
            look = hashlib.sha256(f"look {number}".encode()).hexdigest()
            rows.append(
                NewImage(
                    f"{number}.png",
                    look,
                    len(data),
                    number,
                    digest,
                    look[:16],
                    *size,
                    in_place=str(in_place) if in_place else None,
                    details=Details(tone=tone),
                )
            )
        self.catalogue.images.add(self._dataset, rows, "manager")
        return list(self.catalogue.images.select())[there:]

    def predict(
        self, rows: Sequence[Image], lesion: int = 12, uncertainty: float | None = 0.1
    ) -> list[Mask]:
        """A new model version paints skin, and over it a lesion of so many pixels from the first on."""
        self._models += 1
        model = self.catalogue.models.add(
            NewModelVersion(f"{self._models:064x}", "small", "b" * 64, {}, [], {}, "1.0"),
            "manager",
        )
        self.catalogue.masks.add_predictions(
            [
                NewMask(
                    row.id,
                    self.workspace.store_mask(skin_and_lesion(lesion, (row.width, row.height))),
                    row.width,
                    row.height,
                    "same",
                    [0, 1, 2, 3, 4],
                    "1.0",
                    model_version_id=model.id,
                    uncertainty=uncertainty,
                )
                for row in rows
            ]
        )
        newest = self.catalogue.masks.newest_predictions()
        return [newest[row.id] for row in rows]

    # What the data manager does.

    def push(self, rows: Sequence[Image] | None = None, **options: Any) -> Pushed:
        """`label push` of these images, of all that are there unless told."""
        chosen = self.catalogue.images.select(ids=None if rows is None else [r.id for r in rows])
        return push(self.workspace, self.connection, chosen, PushOptions(**options), "manager")

    def pull(self, *, full: bool = False) -> Pulled:
        return pull(self.workspace, self.connection, Purpose.ANNOTATION, "manager", full=full)

    def push_reviews(self, sample: float = 100, seed: int = 0) -> PushedReviews:
        return push_reviews(self.workspace, self.connection, sample, seed, "manager")

    def pull_reviews(self, *, full: bool = False) -> Pulled:
        return pull(self.workspace, self.connection, Purpose.REVIEW, "manager", full=full)

    # What people do in their browsers.

    def opened(self, task: int) -> Result:
        """The regions that somebody finds painted on opening a task."""
        prediction = self.server.prediction_of(task)
        result = copy.deepcopy(prediction.result) if prediction else []
        return [{**region, "origin": "prediction"} for region in result]

    def submit(self, task: int, result: Result, by: str = ANNOTATOR, **more: Any) -> int:
        return self.server.annotate(task, self.people[by], copy.deepcopy(result), **more)

    def submit_unchanged(self, task: int, by: str = ANNOTATOR, **more: Any) -> int:
        return self.submit(task, self.opened(task), by, **more)

    def skip(
        self,
        task: int,
        reason: str | None = None,
        note: str | None = None,
        by: str = ANNOTATOR,
    ) -> int:
        """The whole result travels with a skip."""
        said = [chosen("skip_reason", reason)] if reason else []
        written = [wrote("note", note)] if note else []
        result = [*self.opened(task), *said, *written]
        return self.server.annotate(task, self.people[by], result, was_cancelled=True)

    def decide(
        self,
        task: int,
        verdict: str,
        comment: str | None = None,
        by: str = REVIEWER,
        strokes: Result | None = None,
    ) -> int:
        """A verdict on the mask that a review task shows; with strokes, on what they make of it."""
        written = [wrote("comment", comment)] if comment else []
        result = [*self.opened(task), *(strokes or []), chosen("verdict", verdict), *written]
        return self.server.annotate(task, self.people[by], result)

    def interrupt(self, attempt: Callable[[], object], fault: Fault) -> int:
        """Let `attempt` run into a fault at its first request, again at its second ...

        Each goes on from where the one before left the two sides. Returns the number of attempts
        that failed before one got through.
        """
        for number in range(100):
            self.server.misbehave("*", "*", fault, skip=number, times=None)
            try:
                attempt()
            except ServerError:
                self.server.behave()
                self.check()
            else:
                self.server.behave()
                return number
        raise AssertionError("no attempt gets through")

    # What there is.

    def tasks(self, purpose: Purpose = Purpose.ANNOTATION) -> list[Task]:
        """The catalogue's tasks that are on the server."""
        return [
            t for t in self.catalogue.tasks.tasks(self.project(purpose)) if t.remote_id is not None
        ]

    def task(self, image: Image, purpose: Purpose = Purpose.ANNOTATION) -> int:
        """The server's number of the newest task of an image."""
        numbers = [t.remote_id for t in self.tasks(purpose) if t.image_id == image.id]
        assert numbers[-1] is not None
        return numbers[-1]

    def review_task(self, image: Image) -> int:
        return self.task(image, Purpose.REVIEW)

    def project(self, purpose: Purpose = Purpose.ANNOTATION) -> int:
        """The catalogue's number of a project."""
        return self.catalogue.tasks.project(self.connection.server, purpose).id

    def number(self, purpose: Purpose = Purpose.ANNOTATION) -> int:
        """The server's number of a project."""
        number = self.catalogue.tasks.project(self.connection.server, purpose).remote_id
        assert number is not None
        return number

    def link(self, task: int, purpose: Purpose = Purpose.ANNOTATION) -> str:
        return f"{self.server.url}/projects/{self.number(purpose)}/data?task={task}"

    def state(self, image: Image) -> str:
        return self.catalogue.images.find(f"#{image.id}").state

    def states(self) -> dict[str, int]:
        return dict(Counter(row.state for row in self.catalogue.images.select()))

    def drawn(self, image: Image) -> list[NDArray[np.uint8]]:
        """The masks that people drew of an image, oldest first."""
        rows = self.catalogue.masks.of_image(image.id)
        return [self.workspace.mask(m) for m in rows if m.annotator is not None]

    def in_review(self, image: Image) -> Mask:
        return self.catalogue.masks.in_review()[image.id]

    def painted(self, task: int) -> NDArray[np.uint8] | None:
        """What a task shows, (H, W) uint8 class ids, 255 where nothing is; None without prediction."""
        predictions = self.server.tasks[task].predictions
        assert len(predictions) < 2, "several predictions show as several tabs"
        return None if not predictions else mask_of(predictions[0].result)

    def rows(self, table: str) -> list[Mapping[str, Any]]:
        """All rows of a table of the catalogue."""
        database: Database = self.catalogue.tasks._database
        with database.read() as session:
            found = session.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))
            return [dict(row) for row in found.mappings()]

    def versions(self) -> list[tuple[int, str]]:
        """The server's number and the outcome of every version of an annotation that is stored."""
        return [(row["remote_id"], row["outcome"]) for row in self.rows("annotations")]

    def copies(self) -> list[Path]:
        """The files that the embedded server shows."""
        folder = Folder(self.workspace.root).media / "images"
        return sorted(folder.iterdir()) if folder.exists() else []

    def check(self, *, all_pulled: bool = False) -> None:
        """Nothing contradicts itself, nothing is doubled and (with `all_pulled`) nothing is lost."""
        assert self.catalogue.events.contradictions() == []
        assert [path for path in self.copies() if path.suffix != ".png"] == []
        for purpose in Purpose:
            project = self.catalogue.tasks.project(self.connection.server, purpose)
            there = {
                n: task.data[KEY]
                for n, task in self.server.tasks.items()
                if task.project.id == project.remote_id
            }
            assert sorted(there.values()) == sorted(set(there.values())), "a task is doubled"
            for task in self.tasks(purpose):
                if task.remote_id in there:
                    assert there[task.remote_id] == task.key
                    assert task.arm != Arm.UNSAMPLED
                    assert len(self.server.tasks[task.remote_id].predictions) == (
                        task.arm == Arm.PREDICTED
                    )
        self._check_annotations(all_pulled=all_pulled)

    def _check_annotations(self, *, all_pulled: bool) -> None:
        versions = Counter(
            (row["task_id"], row["remote_id"], row["updated_at"])
            for row in self.rows(Annotation.__tablename__)
        )
        assert max(versions.values(), default=1) == 1, "a version is stored twice"
        drawn = [m for m in self.catalogue.masks.all() if m.annotator is not None]
        assert len(drawn) == len({(m.image_id, m.annotator, m.content_hash) for m in drawn})
        if not all_pulled:
            return
        numbers = {t.remote_id: t.id for purpose in Purpose for t in self.tasks(purpose)}
        for number, annotation in self.server.annotations.items():
            version = numbers[annotation.task.id], number, shapes.time(annotation.updated_at)
            assert version in versions, f"annotation {number} is lost"


@contextmanager
def team_server(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """A team's server that the command line is connected to."""
    with FakeLabelStudio() as server:
        monkeypatch.setenv(TOKEN_VARIABLE, server.token)
        connect_team(workspace.root, server.url, server.token)
        yield Studio(workspace, server, embedded=False)


def photograph(number: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> images.Photograph:
    """Noise, another for each number; over a million pixels one colour."""
    width, height = size
    if width * height > 1_000_000:
        return np.full((height, width, 3), number, np.uint8)
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def skin_and_lesion(lesion: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> NDArray[np.uint8]:
    mask = np.full(size[0] * size[1], 4, np.uint8)
    mask[:lesion] = 1
    return mask.reshape(size[1], size[0])


def box(rows: slice, columns: slice, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Region:
    region = np.zeros((size[1], size[0]), np.bool_)
    region[rows, columns] = True
    return region


def stroke(
    label: str, region: Region, origin: str | None = "manual", number: str = "stroke1"
) -> dict[str, Any]:
    """A region as the browser submits it."""
    height, width = region.shape
    entry = {
        "id": number,
        "type": "brushlabels",
        "from_name": "mask",
        "to_name": "image",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": brush_rle.encode(region), "brushlabels": [label]},
    }
    return entry if origin is None else {**entry, "origin": origin}


def chosen(control: str, choice: str) -> dict[str, Any]:
    value = {"choices": [choice]}
    return {"type": "choices", "from_name": control, "to_name": "image", "value": value}


def wrote(control: str, line: str) -> dict[str, Any]:
    value = {"text": [line]}
    return {"type": "textarea", "from_name": control, "to_name": "image", "value": value}


def mask_of(result: Result) -> NDArray[np.uint8]:
    """The mask that brush regions show where none lies over another, 255 where there is none."""
    protocol = load_protocol()
    size = result[0]["original_height"], result[0]["original_width"]
    mask = np.full(size, 255, np.uint8)
    for region in result:
        inside = brush_rle.decode(region["value"]["rle"], size) >= brush_rle.ALPHA_THRESHOLD
        assert (mask[inside] == 255).all()
        mask[inside] = protocol.class_named(region["value"]["brushlabels"][0]).index
    return masks.check_mask(mask, 5)


def told(done: Done) -> list[tuple[str, str]]:
    """Name and outcome of each."""
    return [(o.name, o.outcome.value) for o in done.outcomes]


def endings(done: Done) -> list[str]:
    """The outcome of each."""
    return [o.outcome.value for o in done.outcomes]


def notes(done: Done) -> list[str]:
    """What is said of those of which something is said."""
    return [o.note for o in done.outcomes if o.note is not None]


#: Two strokes of the lesion brush that differ.
LESION = [stroke("lesion", box(slice(2), slice(3)))]
SMALLER = [stroke("lesion", box(slice(2), slice(2)))]
