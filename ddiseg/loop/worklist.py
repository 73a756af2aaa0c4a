"""The images in people's hands, and who gives them out."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from ddiseg.catalogue import BatchOrigin, Catalogue, Purpose
from ddiseg.catalogue.tables import Image
from ddiseg.labelstudio.connection import server_of
from ddiseg.labelstudio.push import OPEN
from ddiseg.outcomes import counted
from ddiseg.workspace.workspace import Workspace


@dataclass(frozen=True)
class Worklist:
    """Images that people have or will get, each once.

    A round gives out the batches of rounds. A person's batch is given out by that person, with
    options such as a control arm, which can't be added once people have seen an image.
    """

    given: list[Image]  #: with a task on the labelling server
    to_give: list[Image]  #: of open batches of rounds, without a task
    manual: dict[str, list[Image]]  #: by open batch of a person, without a task

    @classmethod
    def read(cls, workspace: Workspace) -> Worklist:
        catalogue = workspace.catalogue
        tasks = _image_ids_on_server(catalogue, server_of(workspace.root))
        opened = [batch for batch in catalogue.batches.all() if batch.closed_at is None]
        batches = {
            batch.name: set(catalogue.batches.image_ids(batch.name)) - tasks for batch in opened
        }
        ids = sorted(tasks.union(*batches.values()))
        images = catalogue.images.select(ids=ids, states=OPEN)

        def among(chosen: set[int]) -> list[Image]:
            return [image for image in images if image.id in chosen]

        automatic = {batch.name for batch in opened if batch.origin == BatchOrigin.ROUND}
        by_hand = {name: among(batches[name]) for name in batches if name not in automatic}
        return cls(
            given=among(tasks),
            to_give=among({i for name in automatic for i in batches[name]}),
            manual={name: members for name, members in by_hand.items() if members},
        )

    @property
    def images(self) -> list[Image]:
        """All images, ordered by id."""
        images = itertools.chain(self.given, self.to_give, *self.manual.values())
        return sorted(images, key=lambda image: image.id)

    @property
    def reminders(self) -> list[str]:
        """A line for each batch that a person has to give out."""
        return [reminder(name, len(images)) for name, images in self.manual.items()]


def reminder(batch: str, images: int) -> str:
    """Say how many images of a batch wait for the person who drew it."""
    return f"{counted(images, 'image')} of {batch} left for 'ddiseg label push --batch {batch}'"


def _image_ids_on_server(catalogue: Catalogue, server: str) -> set[int]:
    return {
        image_id
        for project in catalogue.tasks.projects(server)
        if project.purpose == Purpose.ANNOTATION
        for image_id in catalogue.tasks.on_server(project.id)
    }
