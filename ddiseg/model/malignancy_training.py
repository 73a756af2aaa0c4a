"""Training of a malignancy classifier on the images of known malignancy: research output, not a diagnosis."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from annotation_protocol import load_protocol
from ddiseg.catalogue import ModelKind, NewModelVersion, State
from ddiseg.catalogue.malignancy import DISCLAIMER
from ddiseg.catalogue.tables import Image, ModelVersion
from ddiseg.compute.job import Refused
from ddiseg.compute.ray_cluster import Cluster
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.model.backbones import Backbones
from ddiseg.model.clinical import Clinical
from ddiseg.model.cluster_backbone import Net, backbone_for
from ddiseg.model.malignancy import auc_by_tone, features_of, scores_by_tone
from ddiseg.model.storage import recorded_backbone, store_model
from ddiseg.outcomes import Stages, silent_stages, track
from ddiseg.sampling.groups import Groups
from ddiseg.sampling.subsets import RESERVED
from ddiseg.workspace.store import Kind
from ddiseg.workspace.stored_files import is_intact
from ddiseg.workspace.workspace import Workspace
from fedd.malignancy.classifier import (
    ClassifierSettings,
    Examples,
    Recipe,
    default_settings,
    train_classifier,
)
from fedd.malignancy.linear import (
    LinearExamples,
    LinearSettings,
    Reader,
    linear_settings,
    train_linear,
)
from fedd.malignancy.stored import Classifier
from fedd.precision import AUTO
from fedd.validation import stratified_validation
from fedd.weights.names import SHIPPED

#: A test set that is never learned from: results on it are for the paper's table.
PAPER_TEST = f"{RESERVED}-test"

#: Settings of a training of either recipe.
TrainingSettings = ClassifierSettings | LinearSettings


@dataclass(frozen=True)
class RefreshedMalignancy:
    """The outcome of a refresh."""

    version: ModelVersion
    new: bool  #: False where the same training had made this version before
    left_out: dict[str, int]  #: images that were not learned from, by reason


def refresh_malignancy(
    workspace: Workspace,
    actor: str,
    backbone: str = SHIPPED,
    seed: int = 0,
    settings: TrainingSettings | None = None,
    exclude: Sequence[str] = (),
    stages: Stages = silent_stages,
    *,
    recipe: str = Recipe.OURS,
    clinical: Clinical | None = None,
    device: str = "cpu",
    precision: str = "float32",
    cluster: Cluster | None = None,
) -> RefreshedMalignancy:
    """Train a classifier on the images of known malignancy and record it as a new model version.

    Images of the subsets `exclude` and of the paper's test set, if it is drawn, are not learned from,
    nor are other images of their groups (patient, lesion, near-duplicates): they can be tested on
    later. The recipe "ours" is cross-validated on the rest, groups kept together. In the paper's a
    validation split that shares no group with the training split ends the training and sets the
    threshold. The same images, answers, backbone and settings as those of the current model change
    nothing.

    Args:
        recipe: a `Recipe`.
        settings: by default those of the recipe for the backbone; they decide the recipe.
        clinical: the answers that the classifier reads beside the photograph, with the recipe "ours".
        device: where the backbone runs; "auto" is all GPUs, or the CPU.
        precision: of the backbone, as `Backbones.get` takes it.
        cluster: its workers do the passes through the backbone.

    Raises:
        InputError: there are not both malignant and benign images, the weights do not fit, there is no
            such device, or a clinical answer that the recipe does not read.
        NotFoundError: an unknown subset.
        WorkspaceError: a photograph can't be read.
    """
    if clinical is not None and Recipe(recipe) is not Recipe.OURS:
        raise InputError(
            "the paper's recipe reads the photograph alone: leave out --clinical and --covariates, or "
            "train with --recipe ours"
        )
    groups = Groups.read(workspace.catalogue)
    images, left_out = _learnable(workspace, groups, exclude)
    net = backbone_for(workspace, backbone, device, precision, Backbones(workspace), cluster)
    settings = replace(settings or _settings(Recipe(recipe), net, len(images), clinical), seed=seed)
    settings.check_block(net)
    job = _Job(workspace, images, groups.keys(images), net, stages, clinical)
    learned = job.learned(settings)
    if (
        same := _same_version(workspace, net, settings, learned, job.facts(), precision)
    ) is not None:
        return RefreshedMalignancy(same, False, left_out)
    started = time.monotonic()
    classifier, metrics = job.train(settings)
    version = workspace.catalogue.models.add(
        NewModelVersion(
            file_hash=store_model(workspace, classifier.save),
            backbone=recorded_backbone(backbone),
            backbone_hash=net.hash,
            settings=settings.to_dict(),
            training_masks=[],
            metrics={
                "note": DISCLAIMER,
                "seconds": round(time.monotonic() - started, 1),
                "images": len(images),
                "malignant": int(job.malignant.sum()),
                "by_tone": dict(sorted(Counter(job.tones).items())),
                "left_out": left_out,
                "threshold": classifier.threshold,
                "precision": net.precision,
                "recipe": settings.recipe.value,
                **metrics,
                **job.facts(),
            },
            protocol_version=load_protocol().version,
            kind=ModelKind.MALIGNANCY,
            training_images=learned,
        ),
        actor,
    )
    return RefreshedMalignancy(version, True, left_out)


@dataclass(frozen=True)
class _Job:
    """The images of a training, with the group of each, and what reads them."""

    workspace: Workspace
    images: Sequence[Image]
    groups: Sequence[str]
    net: Net
    stages: Stages
    clinical: Clinical | None

    @property
    def malignant(self) -> NDArray[np.bool_]:
        return np.array([bool(image.malignant) for image in self.images])

    @property
    def tones(self) -> list[str]:
        return [image.tone for image in self.images]

    def learned(self, settings: TrainingSettings) -> dict[str, dict[str, bool]]:
        """Return what is recorded of each image, by content hash."""
        return {
            image.content_hash: {"malignant": bool(image.malignant), "validation": bool(validates)}
            for image, validates in zip(self.images, self._validation(settings), strict=True)
        }

    def facts(self) -> dict[str, Any]:
        """Return what is recorded of the clinical answers; nothing where there are none."""
        if self.clinical is None:
            return {}
        answers = [
            [of.get(name, "") for name in self.clinical.covariates]
            for of in self.clinical.of(self.images)
        ]
        digest = hashlib.sha256(json.dumps(answers).encode()).hexdigest()
        return {"covariates": list(self.clinical.covariates), "answers": digest}

    def train(self, settings: TrainingSettings) -> tuple[Classifier, dict[str, Any]]:
        """Return the classifier and what is recorded of its training."""
        features = self._features(settings)
        if isinstance(settings, LinearSettings):
            return self._train_ours(features, settings)
        validation = self._validation(settings)
        examples = Examples(torch.from_numpy(features), self.malignant)
        done = train_classifier(
            *(examples.part(~validation), examples.part(validation), self.net, settings),
            self.stages("Training, epochs"),
        )
        read = done.classifier.probabilities(examples.part(validation).features)
        return done.classifier, {
            "validation": int(validation.sum()),
            "epochs": done.epochs,
            "best_epoch": done.best_epoch,
            "on_its_validation_images": scores_by_tone(
                [image for image, inside in zip(self.images, validation, strict=True) if inside],
                [group for group, inside in zip(self.groups, validation, strict=True) if inside],
                *(read, done.classifier.threshold),
            ),
        }

    def _train_ours(
        self, features: NDArray[np.float32], settings: LinearSettings
    ) -> tuple[Classifier, dict[str, Any]]:
        answers = (
            [{}] * len(self.images) if self.clinical is None else self.clinical.of(self.images)
        )
        examples = LinearExamples(features, self.malignant, answers)
        done = train_linear(examples, self.groups, self.net, settings)
        return done.classifier, {
            "validation": len(self.images),
            "folds": done.folds,
            "imputed": done.classifier.encoder.imputed(answers),
            "on_its_validation_images": scores_by_tone(
                *(self.images, self.groups, done.probabilities[Reader.ALL]),
                done.classifier.threshold,
            ),
            "beside": {
                reader.value: auc_by_tone(self.images, self.groups, read)
                for reader, read in done.probabilities.items()
                if reader is not Reader.ALL
            },
        }

    def _validation(self, settings: TrainingSettings) -> NDArray[np.bool_]:
        """Return which images are in the validation split, (N,): none where it is cross-validated."""
        if isinstance(settings, LinearSettings):
            return np.zeros(len(self.images), np.bool_)
        malignant = self.malignant.tolist()
        return stratified_validation(
            malignant, self.tones, self.groups, settings.validation, settings.seed
        )

    def _features(self, settings: TrainingSettings) -> NDArray[np.float32]:
        """Return the features of the images, (N, F)."""
        by_id: dict[int, NDArray[np.float32]] = {}
        with closing(features_of(self.workspace, self.net, self.images, settings)) as found:
            progress = self.stages("Photographs through the backbone")
            for _, (image, each) in zip(track(self.images, progress), found, strict=True):
                if isinstance(each, Refused):
                    raise WorkspaceError(f"{image.name}: {each.reason}")
                by_id[image.id] = each
        return np.stack([by_id[image.id] for image in self.images])


def _settings(recipe: Recipe, net: Net, images: int, clinical: Clinical | None) -> TrainingSettings:
    """Return the settings of a recipe for a backbone and a number of images."""
    if recipe is Recipe.OURS:
        return linear_settings(net, () if clinical is None else clinical.covariates)
    return default_settings(net.config, images)


def _learnable(
    workspace: Workspace, groups: Groups, exclude: Sequence[str]
) -> tuple[list[Image], dict[str, int]]:
    """Return the images to learn from, ordered by content hash, and how many are left out, by reason."""
    subsets = workspace.catalogue.subsets
    test_sets = sorted({*exclude, *({PAPER_TEST} & set(subsets.names()))})
    excluded = groups.relatives({i for name in test_sets for i in subsets.members(name)})
    images: list[Image] = []
    left_out = Counter({"of unknown malignancy": 0, "skipped": 0, "held out": 0})
    for image in workspace.catalogue.images.select():
        if image.malignant is None:
            left_out["of unknown malignancy"] += 1
        elif image.state == State.SKIPPED:
            left_out["skipped"] += 1
        elif image.id in excluded:
            left_out["held out"] += 1
        else:
            images.append(image)
    if not images:
        why = ", ".join(f"{n} {reason}" for reason, n in left_out.items() if n) or "there are none"
        raise InputError(f"no image of known malignancy to learn from ({why}){_advice(left_out)}")
    return sorted(images, key=lambda image: image.content_hash), dict(left_out)


def _advice(left_out: Mapping[str, int]) -> str:
    """Return how to import what is malignant, where that is missing."""
    if not left_out["of unknown malignancy"]:
        return ""
    return (
        ": import them again and say which diagnoses are malignant ('ddiseg import FOLDER --metadata "
        "CSV --columns image=COLUMN,diagnosis=COLUMN --malignant BCC,MEL,SCC --benign rest'), or name "
        "a column that says it with malignant=COLUMN"
    )


def _same_version(
    workspace: Workspace,
    net: Net,
    settings: TrainingSettings,
    learned: dict[str, dict[str, bool]],
    facts: Mapping[str, Any],
    precision: str,
) -> ModelVersion | None:
    """Return the current model if exactly this training made it, in this precision if one was asked for."""
    versions = workspace.catalogue.models.all(ModelKind.MALIGNANCY)
    if not versions:
        return None
    newest = versions[-1]
    if precision != AUTO and newest.classifier_training.precision != net.precision:
        return None
    wanted = (net.hash, settings.to_dict(), learned, facts.get("answers"))
    found = (
        *(newest.backbone_hash, newest.settings, newest.training_images),
        newest.metrics.get("answers"),
    )
    usable = is_intact(workspace.store, Kind.MODEL, newest.file_hash)
    return newest if found == wanted and usable else None
