"""A workspace whose images are tasks of project 3 on a labelling server that nobody runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg import images, masks
from ddiseg.catalogue import Arm, Details, NewImage, NewMask, NewModelVersion, NewTask, Purpose
from ddiseg.catalogue.tables import Image, Mask, Task
from ddiseg.labelstudio.connection import EMBEDDED
from ddiseg.labelstudio.task_payload import image_key
from ddiseg.masks import brush_rle
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.fedd.conftest import spot

PROJECT, REVIEWS = 3, 4
SIZE = 40


@dataclass
class Desk:
    """What a test puts in front of the server, and looks up afterwards."""

    workspace: Workspace
    models: int = field(default=0)

    def add_images(self, n: int, first: int = 0) -> list[Image]:
        """Photographs of a spot each, SIZE x SIZE."""
        catalogue = self.workspace.catalogue
        dataset = catalogue.images.dataset("clinic").id
        rows = []
        for number in range(first, first + n):
            pixels, _ = spot(number, (SIZE, SIZE))
            digest = images.content_hash(pixels)
            self.workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
            look = hashlib.sha256(f"look {number}".encode()).hexdigest()
            details = Details(tone="I-II", patient=f"p{number}")
            columns = f"{number}.png", look, 1, number, digest, look[:16], SIZE, SIZE
            rows.append(NewImage(*columns, details=details))
        catalogue.images.add(dataset, rows, "manager")
        return list(catalogue.images.select())[-n:]

    def accept(self, image: Image, number: int) -> None:
        """The true mask of a spot, by a person, reviewed."""
        mask = spot(number, (SIZE, SIZE))[1]
        self.workspace.catalogue.masks.submit(
            [self._mask(image, mask, annotator="annotator-1")], reviewer="reviewer-1"
        )

    def predict(self, rows: Sequence[Image], lesion: int = 12) -> list[Mask]:
        """A new model version predicts a lesion of so many pixels."""
        self.models += 1
        model = self.workspace.catalogue.models.add(
            NewModelVersion(f"{self.models:064x}", "small", "b" * 64, {}, [], {}, "1.0"), "manager"
        )
        mask = np.full(SIZE * SIZE, 4, np.uint8)
        mask[:lesion] = 1
        mask = mask.reshape(SIZE, SIZE)
        self.workspace.catalogue.masks.add_predictions(
            [self._mask(row, mask, model_version_id=model.id, uncertainty=0.1) for row in rows]
        )
        newest = self.workspace.catalogue.masks.newest_predictions()
        return [newest[row.id] for row in rows]

    def give(
        self,
        rows: Sequence[Image],
        arm: Arm = Arm.BARE,
        mask: Mask | None = None,
        purpose: Purpose = Purpose.ANNOTATION,
        size: int = SIZE,
    ) -> list[Task]:
        """Tasks of images; the server's number is that of the image plus 100."""
        labelling = self.workspace.catalogue.tasks
        number = PROJECT if purpose is Purpose.ANNOTATION else REVIEWS
        project = labelling.project(EMBEDDED, purpose)
        labelling.set_remote_id(project.id, number)
        painted = mask.id if mask is not None else None
        new = [NewTask(image_key(row), row.id, painted, arm, size, size) for row in rows]
        labelling.plan(project.id, new, "manager", {})
        tasks = [t for t in labelling.tasks(project.id) if t.image_id in {r.id for r in rows}]
        labelling.sent({task.id: task.image_id + 100 for task in tasks}, "manager", start=True)
        return [t for t in labelling.tasks(project.id) if t.image_id in {r.id for r in rows}]

    def given(self, arm: Arm = Arm.PREDICTED) -> tuple[Task, Mask]:
        """The task of a new image with a prediction, shown in it unless it is bare."""
        images = self.add_images(1)
        (mask,) = self.predict(images)
        (task,) = self.give(images, arm, None if arm is Arm.BARE else mask)
        return task, mask

    def task(self, number: int) -> Task:
        """As the catalogue has it now, by the server's number."""
        project = self.workspace.catalogue.tasks.project(EMBEDDED, Purpose.ANNOTATION)
        return self.workspace.catalogue.tasks.numbered(project.id, [number])[number]

    def _mask(self, image: Image, mask: NDArray[np.uint8], **columns: Any) -> NewMask:
        digest = self.workspace.store_mask(mask)
        classes = [0, 1, 2, 3, 4]
        return NewMask(image.id, digest, SIZE, SIZE, "same", classes, "1.0", **columns)


def asked(task: Task, **more: Any) -> dict[str, Any]:
    """A task as Label Studio sends it."""
    data = {"image": "/data/local-files/?d=images/x.png", "ddiseg": task.key}
    counts = {"total_annotations": 0, "cancelled_annotations": 0}
    return {"id": task.remote_id, "project": PROJECT, "data": data, **counts, **more}


def predict_request(*tasks: dict[str, Any], context: Any = None) -> dict[str, Any]:
    """A /predict of Label Studio."""
    params = {"login": None, "password": None, "context": context}
    return {"tasks": list(tasks), "project": f"{PROJECT}.1795406531", "params": params}


def painted(result: Sequence[dict[str, Any]]) -> NDArray[np.uint8]:
    """The mask that regions show, 255 where there is none."""
    size = result[0]["original_height"], result[0]["original_width"]
    mask = np.full(size, 255, np.uint8)
    for region in result:
        inside = brush_rle.decode(region["value"]["rle"], size) >= brush_rle.ALPHA_THRESHOLD
        assert (mask[inside] == 255).all()
        label = region["value"]["brushlabels"][0]
        mask[inside] = load_protocol().class_named(label).index
    return masks.check_mask(mask, 5)
