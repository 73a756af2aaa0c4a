"""Catalogues of N images, made up row by row as the program would have written them.

A tenth of the images have an accepted mask. Three segmentation models predicted nearly all images, each
after it had learned from the masks accepted by then, so that people drew over predictions of each. The rows
of a labelling server, the reviews, splits, batches and events go with that: `ddiseg verify` finds nothing.

What is smaller than in life, so that a million images fit into some gigabytes:

- photographs and masks have 64 x 48 pixels; those people drew are all different, predictions that nobody
  was shown share 2,000 files;
- an embedding has 64 numbers, not 320;
- of more than 100,000 photographs only those with an accepted mask and a hundredth of the others are
  stored; the rest are references to files that do not exist, as after an import in place.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from alembic import command
from alembic.config import Config
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from benchmarks.bulk import Bulk
from ddiseg import images, masks
from ddiseg.catalogue import Arm, Catalogue, State
from ddiseg.catalogue.database import Database
from ddiseg.catalogue.embeddings import embedding_space
from ddiseg.catalogue.lifecycle import Action, next_state
from ddiseg.near_duplicates import signatures
from ddiseg.workspace.store import Kind, Store
from ddiseg.workspace.workspace import Workspace
from fedd.segment import SMALL

WIDTH, HEIGHT, DIMENSIONS = 64, 48, 64

#: The schema that the rows are written in: migrations are measured too, and other programs compared.
SCHEMA = "0011"

#: Photographs that are all stored; of more only a part is.
ALL_STORED = 100_000

#: Files that predictions share which nobody was shown.
SHARED_MASKS = 2_000

#: Parts of the accepted masks that were drawn before the first model, and over each one's predictions.
PHASES = (0.1, 0.3, 0.5, 0.1)

#: Parts of all images.
ACCEPTED, PREDICTED, BY_EACH = 0.1, 0.95, 0.98
OTHERS = {
    State.IN_LABELLING: 0.03,
    State.SKIPPED: 0.02,
    State.SUBMITTED: 0.01,
    State.REWORK: 0.005,
}

TONES, TONE_SHARES = ("I-II", "III-IV", "V-VI", "unknown"), (0.45, 0.30, 0.10, 0.15)
DATASETS, DATASET_SHARES = ("clinic-a", "clinic-b", "archive", "phones"), (0.5, 0.3, 0.15, 0.05)

_START = datetime(2026, 1, 1, tzinfo=UTC)
_BACKBONE = "b" * 64


def make_workspace(root: Path, count: int, catalogue_url: str | None = None, seed: int = 0) -> None:
    """Make a workspace with a catalogue of `count` images, and its stored files.

    Args:
        catalogue_url: of an empty database; an SQLite file in the workspace unless given.
    """
    workspace = Workspace.create(root, catalogue_url)
    url = workspace.location.url.render_as_string(hide_password=False)
    store = workspace.store
    workspace.catalogue.close()
    _downgrade(url)
    with Bulk(url) as bulk:
        _Maker(bulk, Files(store), count, seed).make()
    Catalogue.create(url).close()


def _downgrade(url: str) -> None:
    """Take an empty catalogue back to the schema of the rows; it is upgraded with them in it."""
    config = Config()
    config.set_main_option("script_location", str(resources.files("ddiseg.db")))
    database = Database(url)
    with database.engine.execution_options(ddiseg_write=True).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, SCHEMA)
    database.engine.dispose()


class Files:
    """The stored files: small photographs and masks, each other ones by their number."""

    def __init__(self, store: Store) -> None:
        self._store, self._palette = store, load_protocol().palette()
        self._made: set[str] = set()
        y, x = np.mgrid[:HEIGHT, :WIDTH]
        self._distance = np.hypot((x - WIDTH / 2) / 1.2, y - HEIGHT / 2)
        self.lesion = load_protocol().class_named("lesion").index
        self._skin = load_protocol().class_named("skin").index

    def photograph(self, number: int, tone: int, *, stored: bool) -> str:
        """Return the content hash of a photograph, which shows its number in the first row."""
        if not stored:
            return hashlib.sha256(b"photograph %d" % number).hexdigest()
        pixels = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        pixels[:] = np.array((224, 188, 164)) - 40 * (tone % 3)
        pixels[self._distance < 6 + number % 13] = (96, 60, 48)
        pixels[0, :, 0] = [number >> bit & 1 for bit in range(WIDTH)]
        digest = images.content_hash(pixels)
        self._write(Kind.IMAGE, digest, images.encode_png(pixels))
        return digest

    def mask(self, number: int, radius: int) -> str:
        """Return the content hash of a mask with a lesion, and its number in the first row."""
        mask = np.full((HEIGHT, WIDTH), self._skin, np.uint8)
        mask[self._distance < radius] = self.lesion
        mask[0, :32] = [2 + (number >> bit & 1) for bit in range(32)]
        digest = masks.mask_hash(mask)
        if digest not in self._made:
            self._made.add(digest)
            self._write(Kind.MASK, digest, masks.encode_png(mask, self._palette))
        return digest

    def model(self, number: int) -> str:
        """Return the content hash of a file that stands for a model's."""
        data = b"stands for model %d" % number
        digest = hashlib.sha256(data).hexdigest()
        self._write(Kind.MODEL, digest, data)
        return digest

    def _write(self, kind: Kind, digest: str, data: bytes) -> None:
        path = Path(self._store.path(kind, digest))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)  # not flushed: it can be made again


class _Maker:
    def __init__(self, bulk: Bulk, files: Files, count: int, seed: int) -> None:
        self._bulk, self._files, self._count = bulk, files, count
        self._rng = np.random.default_rng(seed)
        self._ids: dict[str, Iterator[int]] = {}
        self._ticks, self._second, self._until_second = itertools.count(), -1, ""
        self._state = np.full(count + 1, State.NEW.value, object)
        self._hashes: list[str] = [""] * (count + 1)
        self._patients: list[str | None] = [None] * (count + 1)
        self._tone = self._rng.choice(len(TONES), count + 1, p=TONE_SHARES)
        self._holdout = np.zeros(count + 1, bool)
        self._shown: dict[int, tuple[int, int]] = {}  # prediction and its version by image
        self._accepted: dict[int, str] = {}
        self._shared = [files.mask(-1 - n, 5 + n % 12) for n in range(min(SHARED_MASKS, count))]
        waves = np.cos(np.pi * np.outer(np.arange(6), np.arange(48) + 0.5) / 48)
        weights = 40 / (1 + np.add.outer(np.arange(6), np.arange(6)))
        weights[0, 0] = 0
        self._waves, self._weights = waves.astype(np.float32), weights.astype(np.float32)
        self._noise = self._rng.normal(128, 3, (61, 48, 48)).astype(np.float32)
        self._predicted = self._rng.random(count + 1) < PREDICTED

    def make(self) -> None:
        chosen = self._rng.permutation(np.arange(1, self._count + 1))
        accepted, rest = np.split(chosen, [round(ACCEPTED * self._count)])
        self._stored = set(accepted.tolist()) | {*range(1, self._count + 1, 100)}
        parts = np.split(accepted, np.round(np.cumsum(PHASES[:-1]) * len(accepted)).astype(int))
        self._images()
        self._projects()
        for phase, part in enumerate(parts):
            if phase:
                self._version(phase)
                others = {}
                if phase == len(parts) - 1:
                    ends = np.round(np.cumsum([*OTHERS.values()]) * self._count).astype(int)
                    others = dict(zip(OTHERS, np.split(rest, ends), strict=False))
                drawn_over = [others[s] for s in (State.SUBMITTED, State.REWORK) if s in others]
                own = {*part.tolist(), *itertools.chain(*map(np.ndarray.tolist, drawn_over))}
                self._predict(phase, own, {*own, *itertools.chain(*others.values())})
                for state, ids in others.items():
                    self._batch(phase, ids, open_=True)
                    for image in ids.tolist():
                        self._label(image, phase, State(state))
                self._batch(phase, part)
            for image in part.tolist():
                self._label(image, phase, State.ACCEPTED)
        self._subsets(rest)
        self._evaluate(accepted)
        for image in range(1, self._count + 1):
            self._bulk.change_state(image, self._state[image])
        self._round()

    # Import

    def _images(self) -> None:
        bounds = np.round(np.cumsum((0, *DATASET_SHARES)) * self._count).astype(int)
        for number, name in enumerate(DATASETS, 1):
            self._add("datasets", name=name, licence="made up", source=None)
            self._dataset(number, range(bounds[number - 1] + 1, bounds[number] + 1))

    def _dataset(self, dataset: int, ids: range) -> None:
        left, patient = 0, 0
        before: str | None = None
        for start in range(0, len(ids), 4096):
            part = ids[start : start + 4096]
            thumbnails = self._thumbnails(len(part))
            for image, pixels, signature in zip(
                part, thumbnails, signatures(thumbnails), strict=True
            ):
                if not left:
                    left, patient = int(self._rng.integers(1, 7)), patient + 1
                left -= 1
                known = f"{DATASETS[dataset - 1]}-{patient:06}" if patient % 10 else None
                twin = known is not None and known == before and not image % 20
                before = known
                self._image(dataset, image, known, twin)
                self._bulk.add(
                    "thumbnails",
                    image_id=image,
                    signature=signature.tobytes(),
                    pixels=pixels.tobytes(),
                )
                if twin:
                    self._bulk.add(
                        "near_duplicates",
                        first_id=image - 1,
                        second_id=image,
                        correlation=0.9,
                        change="same",
                    )

    def _thumbnails(self, count: int) -> NDArray[np.uint8]:
        """Return smooth pictures (count, 48, 48), of low frequencies, as photographs are."""
        fields = self._rng.standard_normal((count, 6, 6), np.float32) * self._weights
        made = self._waves.T @ fields @ self._waves
        made += self._noise[np.arange(count) % len(self._noise)]
        return np.clip(made, 0, 255, out=made).astype(np.uint8)

    def _image(self, dataset: int, image: int, patient: str | None, twin: bool) -> None:
        number, tone = image * 2654435761 % 2**32, int(self._tone[image])
        stored = self._count <= ALL_STORED or image in self._stored
        digest = self._files.photograph(image, tone, stored=stored)
        name, at = f"{DATASETS[dataset - 1]}_{image:07}.png", self._at()
        self._hashes[image], self._patients[image] = digest, patient
        self._holdout[image] = hashlib.sha256((patient or digest).encode()).digest()[0] < 51
        known = number % 10 < 8
        self._bulk.add(
            "images",
            id=image,
            dataset_id=dataset,
            name=name,
            content_hash=digest,
            perceptual_hash=hashlib.sha256(digest.encode()).hexdigest()[:16],
            near_group=image - 1 if twin else image,
            width=WIDTH,
            height=HEIGHT,
            in_place=None if stored else f"/photographs/{image % 1000:03}/{name}",
            tone=TONES[tone],
            tone_source=None if TONES[tone] == "unknown" else "metadata.csv: skin_tone",
            fitzpatrick=2 * tone + 1 + number % 2 if tone < 3 and number % 3 else None,
            malignant=number % 10 < 2 if known else None,
            malignant_source="metadata.csv: malignant" if known else None,
            diagnosis=f"diagnosis {min(number % 97, number % 53, number % 31):02}"
            if known
            else None,
            patient=patient,
            lesion=f"{patient}-{number % 2}" if patient else None,
            state=State.NEW.value,
            created_at=at,
        )
        self._source(dataset, image, f"part-{image % 100:02}/{name}", digest)
        self._event(image, "import", "data manager", {"path": name}, after=State.NEW)
        if not number % 100:
            self._source(dataset, image, f"again/{name}", digest)
            self._event(image, "duplicate", "data manager", {"path": f"again/{name}"})

    def _source(self, dataset: int, image: int, path: str, digest: str) -> None:
        self._add(
            "sources",
            dataset_id=dataset,
            image_id=image,
            path=path,
            name=path.rsplit("/", 1)[-1],
            file_hash=digest[::-1],
            size=20_000 + image % 1000,
            modified_ns=1_700_000_000_000_000_000 + image,
            orientation=1,
        )

    # Models

    def _version(self, number: int) -> None:
        learned = {i: m for i, m in self._accepted.items() if not self._holdout[i]}
        compared = [self._hashes[i] for i in self._accepted if self._holdout[i]]
        validated = [self._hashes[i] for i in self._validation(list(learned))]
        self._splits()
        self._add(
            "model_versions",
            name=f"fedd-{number}",
            file_hash=self._files.model(number),
            backbone="small",
            backbone_hash=_BACKBONE,
            settings=json.dumps(SMALL.to_dict()),
            training_masks=json.dumps(sorted(learned.values())),
            metrics=json.dumps(
                {
                    "seconds": 100.0,
                    "images": len(learned),
                    "by_tone": {},
                    "validation": {"images": len(validated), "by_tone": {}, "members": validated},
                }
            ),
            protocol_version=load_protocol().version,
            kind="segmentation",
            training_images="{}",
            gate=json.dumps(
                {
                    "passed": True,
                    "judged": True,
                    "reasons": ["no tone is worse"],
                    "held_out": {"images": len(compared), "patients": 0, "members": compared},
                }
            ),
        )
        self._event(None, "refresh", "data manager", {"model": f"fedd-{number}"})
        self._add(
            "promotions", model_version_id=number, actor="data manager", why="gate", forced=False
        )
        self._event(None, "promote", "data manager", {"model": f"fedd-{number}"})

    def _validation(self, learned: Sequence[int]) -> list[int]:
        """Return the images of a tenth of the patients; those without a patient are fitted to."""
        return [
            i
            for i in learned
            if (patient := self._patients[i]) and hashlib.sha256(patient.encode()).digest()[1] < 26
        ]

    def _splits(self) -> None:
        """Give a split to each image that was accepted since the version before."""
        for image in list(self._accepted)[self._bulk.count("sides") :]:
            split = "held_out" if self._holdout[image] else "training"
            self._bulk.add("sides", image_id=image, side=split, created_at=self._at())

    def _predict(self, version: int, own: set[int], shown: set[int]) -> None:
        """Store the predictions of a version, of all images to be shown; some have files of their own."""
        by_each = self._rng.random(self._count + 1) < BY_EACH
        uncertain = self._rng.random(self._count + 1).round(6)
        space = embedding_space(_BACKBONE, SMALL.to_dict())
        scale = np.geomspace(1, 0.01, DIMENSIONS)
        for image in range(1, self._count + 1):
            if image not in shown and not (self._predicted[image] and by_each[image]):
                continue
            digest = self._shared[(image + version) % len(self._shared)]
            if image in own:
                digest = self._files.mask(image, 8 + image % 7)
            mask = self._mask(
                image, digest, model_version_id=version, uncertainty=float(uncertain[image])
            )
            if image in shown:
                self._shown[image] = (mask, version)
            self._step(image, Action.PRELABEL, f"model #{version}", {"mask": digest})
            if version == 1:
                vector = (self._rng.normal(size=DIMENSIONS) * scale).astype("<f4")
                self._bulk.add("descriptors", image_id=image, space=space, vector=vector.tobytes())

    def _mask(self, image: int, digest: str, **columns: Any) -> int:
        return self._add(
            "masks",
            image_id=image,
            content_hash=digest,
            width=WIDTH,
            height=HEIGHT,
            mapping="same",
            classes="[0, 1, 2, 3, 4]",
            protocol_version=load_protocol().version,
            **{"independent": False, **columns},
        )

    # People

    def _projects(self) -> None:
        for number, purpose in enumerate(("annotation", "review"), 1):
            self._add(
                "projects",
                server="embedded",
                purpose=purpose,
                key=f"{number:032x}",
                remote_id=number,
                watermark=_START.isoformat(),
            )

    def _label(self, image: int, phase: int, until: State) -> None:
        """Give an image to an annotator and go on until it is in a state."""
        annotator = f"annotator-{image % 8 + 1}"
        prediction, _ = self._shown.get(image, (None, 0))
        arm = Arm.BARE if prediction is None else Arm.PREDICTED if image % 5 else Arm.CONTROL
        readers = 2 if phase and not image % 17 else 1
        task = self._task(1, image, prediction, arm, readers)
        self._step(image, Action.START, "data manager", {"task": task, "arm": arm.value})
        if until is State.IN_LABELLING:
            return
        if until is State.SKIPPED:
            self._skip(image, task, annotator)
            return
        changed = 0 if image % 5 == 1 else 1 + image % 4
        digest = self._files.mask(image, 8 + image % 7 + changed)
        parent = prediction if arm is Arm.PREDICTED else None
        drawn = self._mask(
            image, digest, annotator=annotator, parent_id=parent, origin=f"task {task}"
        )
        self._annotate(task, annotator, mask_id=drawn, changed=changed)
        detail = {"mask": digest, "task": task}
        self._step(image, Action.SUBMIT, annotator, detail)
        if readers == 2:
            second = f"annotator-{(image + 1) % 8 + 1}"
            other = self._files.mask(image, 8 + image % 7 + changed + 1)
            self._annotate(
                task,
                second,
                mask_id=self._mask(image, other, annotator=second, parent_id=parent),
            )
        if until is State.SUBMITTED:
            self._bulk.add("submissions", image_id=image, mask_id=drawn)
            if image % 2:
                self._task(2, image, drawn, Arm.PREDICTED)
            return
        verdict = "reject" if until is State.REWORK else "accept" if image % 10 else "fixed"
        self._review(image, drawn, digest, verdict)

    def _review(self, image: int, drawn: int, digest: str, verdict: str) -> None:
        reviewer = f"reviewer-{image % 3 + 1}"
        task = self._task(2, image, drawn, Arm.PREDICTED)
        review = self._add(
            "reviews", mask_id=drawn, reviewer=reviewer, verdict=verdict, comment=None
        )
        self._annotate(task, reviewer, outcome="verdict", review_id=review)
        if verdict == "reject":
            self._step(image, Action.REJECT, reviewer, {"mask": digest, "comment": None})
            return
        detail, accepted = {"mask": digest, "comment": None}, drawn
        if verdict == "fixed":
            digest = self._files.mask(image, 21 + image % 2)
            accepted = self._mask(image, digest, annotator=reviewer, parent_id=drawn)
            detail["fix"] = digest
        self._step(image, Action.ACCEPT, reviewer, detail)
        self._bulk.add("acceptances", image_id=image, mask_id=accepted)
        self._accepted[image] = digest

    def _skip(self, image: int, task: int, annotator: str) -> None:
        reason = ("occluded", "blurry", "partial", "ambiguous")[image % 4]
        skip = self._add("skips", image_id=image, reason=reason, note=None, annotator=annotator)
        self._annotate(task, annotator, outcome="skip", skip_id=skip)
        self._step(image, Action.SKIP, annotator, {"reason": reason, "note": None})

    def _task(self, project: int, image: int, mask: int | None, arm: Arm, readers: int = 1) -> int:
        number = self._next("tasks")
        self._bulk.add(
            "tasks",
            id=number,
            project_id=project,
            image_id=image,
            key=f"{number:032x}",
            mask_id=mask,
            arm=arm.value,
            readers=readers,
            width=WIDTH,
            height=HEIGHT,
            media=f"/data/upload/{project}/{number}.png",
            remote_id=number,
            created_at=self._at(),
        )
        return number

    def _annotate(self, task: int, person: str, outcome: str = "mask", **columns: Any) -> None:
        number = self._next("annotations")
        at = self._at()
        self._bulk.add(
            "annotations",
            id=number,
            task_id=task,
            remote_id=number,
            updated_at=at,
            people=json.dumps([person]),
            outcome=outcome,
            lead_time=20.0 + number * 7919 % 600,
            created_at=at,
            **columns,
        )

    # Sets of images

    def _batch(self, phase: int, ids: NDArray[np.int64], *, open_: bool = False) -> None:
        name = f"batch-{self._bulk.count('batches') + 1}"
        drawn_by = {
            "request": {"size": len(ids)},
            "model": f"fedd-{phase}",
            "notes": [],
            "lacking": [],
        }
        batch = self._add(
            "batches",
            name=name,
            drawn_by=json.dumps(drawn_by),
            closed_at=None if open_ else self._at(),
            origin="person",
        )
        for position, image in enumerate(ids.tolist()):
            self._bulk.add(
                "batch_members",
                batch_id=batch,
                image_id=image,
                position=position,
                random=position % 5 == 0,
                reason="at random" if position % 5 == 0 else "uncertain",
            )
        self._event(None, "batch", "data manager", {"name": name, "n": len(ids), **drawn_by})

    def _subsets(self, rest: NDArray[np.int64]) -> None:
        """Store a test set and a pilot apart from it, by whole patients, and the newest batch."""
        open_batch = rest[-max(1, self._count // 1000) :]
        self._batch(len(PHASES) - 1, open_batch, open_=True)
        by_patient = [i for i in range(1, self._count + 1) if self._patients[i]]
        first, second = by_patient[: self._count // 100], by_patient[-self._count // 100 :]
        for name, ids, apart in (("test", first, []), ("pilot", second, ["test"])):
            drawn_by = {
                "request": {"per_tone": [len(ids)]},
                "apart_from": apart,
                "notes": [],
                "lacking": [],
            }
            subset = self._add("subsets", name=name, drawn_by=json.dumps(drawn_by))
            for image in ids:
                self._bulk.add("subset_members", subset_id=subset, image_id=image)
            self._event(None, "subset", "data manager", {"name": name, "n": len(ids)})

    def _evaluate(self, accepted: NDArray[np.int64]) -> None:
        """Store an evaluation of up to 2,000 hold-out images with the predictions that were shown."""
        compared = [i for i in accepted.tolist() if self._holdout[i] and i in self._shown][:2000]
        models = {f"fedd-{v}": n for v, n in _counted(self._shown[i][1] for i in compared).items()}
        estimates = {"truth": "accepted masks", "models": models, "n_images": len(compared)}
        event = self._event(None, "evaluation", "data manager", estimates)
        self._bulk.add("evaluations", event_id=event, estimates=json.dumps(estimates))
        for image in compared:
            self._bulk.add(
                "evaluated_images",
                event_id=event,
                image_id=image,
                mask_id=self._shown[image][0],
                truth_hash=self._accepted[image],
                lesion_iou=0.5 + image % 499 / 1000,
            )

    def _round(self) -> None:
        at = self._at()
        self._add(
            "rounds", actor="data manager", started_at=at, ended_at=at, outcome="done", steps="[]"
        )

    # Rows

    def _step(self, image: int, action: Action, actor: str, detail: dict[str, Any]) -> None:
        before = State(self._state[image])
        after = next_state(before, action, str(image))
        self._state[image] = after.value
        self._event(image, action.value, actor, detail, before=before, after=after)

    def _event(
        self,
        image: int | None,
        kind: str,
        actor: str,
        detail: dict[str, Any],
        before: State | None = None,
        after: State | None = None,
    ) -> int:
        number = self._next("events")
        self._bulk.add(
            "events",
            id=number,
            at=self._at(),
            kind=kind,
            actor=actor,
            image_id=image,
            state_before=before and before.value,
            state_after=after and after.value,
            detail=json.dumps(detail),
        )
        return number

    def _add(self, table: str, **columns: Any) -> int:
        """Add a row with the next id of its table, and the time where the table has one."""
        number = self._next(table)
        if table != "rounds":
            columns["created_at"] = self._at()
        self._bulk.add(table, id=number, **columns)
        return number

    def _next(self, table: str) -> int:
        return next(self._ids.setdefault(table, itertools.count(1)))

    def _at(self) -> str:
        """Return the next time, three milliseconds after the one before."""
        second, milliseconds = divmod(3 * next(self._ticks), 1000)
        if second != self._second:
            moment = _START + timedelta(seconds=second)
            self._second, self._until_second = second, moment.strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._until_second}.{milliseconds:03}000+00:00"


def _counted(values: Iterator[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
