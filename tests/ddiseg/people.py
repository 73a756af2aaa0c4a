"""People at a labelling server: fills a workspace with masks that they drew and had accepted."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ddiseg import images
from ddiseg.catalogue import (
    AnnotationPage,
    AnnotationVersion,
    Arm,
    Details,
    NewImage,
    NewMask,
    NewModelVersion,
    NewTask,
    Purpose,
)
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace

WIDTH, HEIGHT = 8, 6


def lesion(pixels: int, height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """A mask of skin whose first `pixels` pixels are lesion."""
    mask = np.full(height * width, 4, np.uint8)
    mask[:pixels] = 1
    return mask.reshape(height, width)


class People:
    """Each image is given out as one task; annotator-1 draws and reviewer-1 decides."""

    def __init__(self, workspace: Workspace, models: int = 1) -> None:
        self.workspace = workspace
        self.catalogue = workspace.catalogue
        self.project_id = self.catalogue.tasks.project(
            "http://labels.example", Purpose.ANNOTATION
        ).id
        self._dataset_id = self.catalogue.images.dataset("clinic").id
        self._models = [
            self.catalogue.models.add(
                NewModelVersion(str(k) * 64, "small", "b" * 64, {}, ["m"], {}, "1.0"), "tester"
            )
            for k in range(models)
        ]

    def accept(
        self,
        drawn: NDArray[np.uint8],
        prediction: NDArray[np.uint8] | None = None,
        *,
        arm: Arm | None = None,
        seconds: float | None = 30.0,
        tone: str = "I-II",
        patient: str | None = None,
        model: int = 0,
        fix: NDArray[np.uint8] | None = None,
        given_out_again: bool = False,
    ) -> int:
        """An image whose mask was drawn and accepted; returns its id.

        `prediction` was shown unless `arm` says otherwise; `fix` is the reviewer's mask, accepted
        in place of the one drawn; `given_out_again`: another person's mask was shown instead.
        """
        image_id = self.give_out(
            prediction, arm, tone=tone, patient=patient, model=model, again=given_out_again
        )
        self.draw(image_id, drawn, seconds)
        waiting = self.catalogue.masks.in_review()[image_id]
        if fix is None:
            self.catalogue.masks.review(waiting.id, "reviewer-1", "accept")
        else:
            corrected = self._mask(image_id, fix, "reviewer-1")
            corrected = replace(corrected, parent_id=waiting.id)
            self.catalogue.masks.review(waiting.id, "reviewer-1", "fixed", fix=corrected)
        return image_id

    def give_out(
        self,
        prediction: NDArray[np.uint8] | None,
        arm: Arm | None = None,
        *,
        tone: str = "I-II",
        patient: str | None = None,
        model: int = 0,
        again: bool = False,
    ) -> int:
        """A new image as a task on the server; returns its id."""
        image_id = self._add_image(tone, patient)
        masks, mask_id = self.catalogue.masks, None
        if prediction is not None:
            new = self._mask(image_id, prediction, None)
            masks.add_predictions([replace(new, model_version_id=self._models[model].id)])
            mask_id = masks.newest_predictions()[image_id].id
        if again:
            masks.submit([self._mask(image_id, lesion(1), "annotator-2")])
            waiting = masks.in_review()[image_id]
            masks.review(waiting.id, "reviewer-1", "reject")
            mask_id = waiting.id
        arm = arm or (Arm.BARE if mask_id is None else Arm.PREDICTED)
        labelling = self.catalogue.tasks
        task = NewTask(f"image {image_id}", image_id, mask_id, arm, WIDTH, HEIGHT)
        labelling.plan(self.project_id, [task], "manager", {})
        labelling.sent({self._task(image_id): 100 + image_id}, "manager", start=True)
        return image_id

    def draw(self, image_id: int, drawn: NDArray[np.uint8], seconds: float | None) -> None:
        task = self._task(image_id)
        received = AnnotationVersion(
            task,
            500 + image_id,
            "2026-01-01T00:00:00.000000Z",
            ("annotator-1",),
            seconds,
            self._mask(image_id, drawn, "annotator-1"),
        )
        page = AnnotationPage([received], {task: {received.remote_id}})
        self.catalogue.tasks.receive(self.project_id, page)

    def _add_image(self, tone: str, patient: str | None) -> int:
        number = len(self.catalogue.images.select()) + 1
        pixels = np.random.default_rng(1000 + number).integers(
            0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8
        )
        digest = images.content_hash(pixels)
        self.workspace.store.put(Kind.IMAGE, digest, images.encode_png(pixels))
        name = f"drawn-{number}.png"
        look = hashlib.sha256(name.encode()).hexdigest()
        details = Details(tone=tone, patient=patient)
        row = NewImage(name, look, 1, number, digest, look[:16], WIDTH, HEIGHT, details=details)
        self.catalogue.images.add(self._dataset_id, [row], "manager")
        return self.catalogue.images.find(name).id

    def _mask(self, image_id: int, pixels: NDArray[np.uint8], annotator: str | None) -> NewMask:
        height, width = pixels.shape
        return NewMask(
            image_id,
            self.workspace.store_mask(pixels),
            width,
            height,
            "same" if (height, width) == (HEIGHT, WIDTH) else "stretched",
            [0, 1, 2, 3, 4],
            "1.0",
            annotator,
        )

    def _task(self, image_id: int) -> int:
        tasks = self.catalogue.tasks.tasks(self.project_id)
        return next(task.id for task in tasks if task.image_id == image_id)
