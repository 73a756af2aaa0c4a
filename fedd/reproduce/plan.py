"""The plan of a reproduction: the cells of the paper's experiments, and the settings of each.

A cell is one model of one task, trained on one fraction of the data with one seed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from fedd.baselines import CNNSettings, Recipe, Start, UNetSettings
from fedd.errors import ReproductionError
from fedd.files import file_hash
from fedd.malignancy.classifier import ClassifierSettings
from fedd.malignancy.classifier import default_settings as default_classifier
from fedd.network.architecture import Architecture
from fedd.paper import results
from fedd.probes.settings import settings_of as default_probes
from fedd.segment import Ensemble, ProbeSettings

Task = Literal["segmentation", "classification"]

SEGMENTATION: Task = "segmentation"
CLASSIFICATION: Task = "classification"
TASKS: tuple[Task, ...] = (SEGMENTATION, CLASSIFICATION)

#: The name of the ablation, the paper's figure 6.
FIGURE6 = "figure6"

FEDD = "FEDD"
DEEPDERM = "DeepDerm"

#: The paper's baselines, and their names in `fedd baseline`.
UNETS = {
    "EfficientNetB0": "efficientnet-b0",
    "VGG16": "vgg16",
    "DenseNet121": "densenet121",
    "ResNet50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
}
CNNS = {
    "EfficientNetB0": "efficientnet_b0",
    "VGG16": "vgg16",
    "DenseNet121": "densenet121",
    "ResNet50": "resnet50",
    "MobileNetV2": "mobilenet_v2",
    DEEPDERM: "deepderm",
}

#: Endings of weights files that a baseline can start from.
WEIGHTS_FILES = (".safetensors", ".pth", ".pt")


@dataclass(frozen=True)
class Cell:
    """One model of one task, trained on `fraction` percent of the data."""

    task: Task
    model: str
    fraction: int
    seed: int

    @property
    def name(self) -> str:
        """Return the cell's name in files."""
        return f"{self.task}-{self.model}-{self.fraction:02d}-seed{self.seed}"

    def __str__(self) -> str:
        return f"{self.task}, {self.model}, {self.fraction} %, seed {self.seed}"


@dataclass(frozen=True)
class Starts:
    """The baselines' initial weights: a file of `folder` if it has one, else `otherwise`."""

    otherwise: Start = Start.IMAGENET
    folder: Path | None = None

    def of(self, name: str) -> Start | Path:
        """Return the initial weights of the network called `name` in `fedd baseline`."""
        if self.folder is not None:
            for ending in WEIGHTS_FILES:
                path = self.folder / f"{name}{ending}"
                if path.is_file():
                    return path
        return self.otherwise

    def lacking(self, name: str, called: str) -> str:
        """Return that no file of weights called `name` is given, and how to give one; "" if one is."""
        if isinstance(self.of(name), Path):
            return ""
        known = f"{name}{' or '.join(WEIGHTS_FILES)}"
        others = [] if self.folder is None else sorted(self.folder.glob(f"{name}.*"))
        there = f" ({others[0].name} is there, but can't be read)" if others else ""
        where = self.folder or "FOLDER"
        return f"{called} are not given{there}: --baseline-weights {where} takes them from {where}/{known}"


@dataclass(frozen=True)
class Plan:
    """All cells with their settings. A `small` plan is not compared with the paper."""

    probes: ProbeSettings
    classifiers: Mapping[int, ClassifierSettings]  #: by fraction
    unet: UNetSettings
    cnn: CNNSettings  #: of all but DeepDerm
    deepderm: CNNSettings
    starts: Starts
    ablation: ProbeSettings  #: of figure 6; block and timestep are replaced by those of each cell
    timesteps: tuple[int, ...] = tuple(range(0, 1001, 50))  #: of figure 6
    seeds: tuple[int, ...] = (0,)
    fractions: tuple[int, ...] = (5, 10, 15, 20)
    segmenters: tuple[str, ...] = (FEDD, *UNETS)
    classified: tuple[str, ...] = (FEDD, *CNNS)
    small: bool = False
    notes: tuple[str, ...] = ()  #: remarks for the report

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ReproductionError("no seed: a plan needs at least one")

    @property
    def cells(self) -> list[Cell]:
        """Return the cells in the order in which they are run: FEDD of both tasks, then the baselines."""
        every = [
            Cell(task, model, fraction, seed)
            for task, models in self.models.items()
            for model in models
            for seed in self.seeds
            for fraction in self.fractions
        ]
        return sorted(every, key=lambda cell: cell.model != FEDD)

    @property
    def models(self) -> dict[Task, tuple[str, ...]]:
        return {SEGMENTATION: self.segmenters, CLASSIFICATION: self.classified}

    def settings(
        self, cell: Cell
    ) -> ProbeSettings | ClassifierSettings | UNetSettings | CNNSettings:
        """Return everything that determines a cell's result besides photographs and backbone."""
        if cell.task == SEGMENTATION:
            return self.probe_settings(cell) if cell.model == FEDD else self.unet_settings(cell)
        return self.classifier_settings(cell) if cell.model == FEDD else self.cnn_settings(cell)

    def deciding_by(self, ensemble: Ensemble) -> Plan:
        """Return the plan with members that decide in another way, in the cells and in figure 6."""
        return replace(
            self,
            probes=replace(self.probes, ensemble=ensemble),
            ablation=replace(self.ablation, ensemble=ensemble),
        )

    def probe_settings(self, cell: Cell) -> ProbeSettings:
        return replace(self.probes, seed=cell.seed)

    def classifier_settings(self, cell: Cell) -> ClassifierSettings:
        return replace(self.classifiers[cell.fraction], seed=cell.seed)

    def unet_settings(self, cell: Cell) -> UNetSettings:
        name = UNETS[cell.model]
        return replace(self.unet, encoder=name, start=self.starts.of(name), seed=cell.seed)

    def cnn_settings(self, cell: Cell) -> CNNSettings:
        name = CNNS[cell.model]
        settings = self.deepderm if cell.model == DEEPDERM else self.cnn
        return replace(settings, model=name, start=self.starts.of(name), seed=cell.seed)

    def lacking(self, cell: Cell) -> str:
        """Return what a cell can't do without and was not given, or "".

        From other weights, DeepDerm is not DeepDerm, and a frozen encoder stays as it starts: only a small
        plan, which is no result, makes do with random ones.
        """
        if self.small or cell.task != CLASSIFICATION or cell.model == FEDD:
            return ""
        settings = self.cnn_settings(cell)
        if cell.model == DEEPDERM:
            return self.starts.lacking(settings.model, "DeepDerm's weights")
        if settings.frozen and settings.start is Start.SCRATCH:
            why = "the weights of a frozen encoder, which would stay random with --from-scratch,"
            return self.starts.lacking(settings.model, why) + "; --recipe ours trains all of it"
        return ""


def paper_plan(
    config: Architecture,
    starts: Starts,
    seeds: Sequence[int] = (0,),
    recipe: Recipe = Recipe.PAPER,
) -> Plan:
    """Return the paper's experiments, with the settings for a backbone; `recipe` is the baselines'."""
    fractions = tuple(results()["fractions"])
    notes = ["The baselines are trained by the recipe of the authors' notebooks (--recipe paper)."]
    if recipe is Recipe.OURS:
        notes = [
            "The baselines are trained end to end on augmented photographs (--recipe ours), not as in the "
            "paper."
        ]
    return Plan(
        probes=default_probes(config),
        classifiers={f: default_classifier(config, 6 * f) for f in fractions},
        unet=UNetSettings.of(recipe),
        cnn=CNNSettings.of(recipe),
        deepderm=CNNSettings.of(recipe, model=CNNS[DEEPDERM]),
        starts=starts,
        ablation=default_probes(config),
        seeds=tuple(seeds),
        fractions=fractions,
        notes=tuple(notes),
    )


def chosen(cells: Sequence[Cell], only: Collection[str]) -> list[Cell]:
    """Return the cells of the tasks and models in `only`, case-insensitive; all if it is empty.

    `figure6` names no cell. Raises ReproductionError for another name.
    """
    named = {name.lower() for name in only}
    wanted = named - {FIGURE6}
    tasks = {task.lower() for task in TASKS}
    models = {cell.model.lower() for cell in cells}
    if unknown := sorted(wanted - tasks - models):
        known = ", ".join(dict.fromkeys((*TASKS, FIGURE6, *(cell.model for cell in cells))))
        raise ReproductionError(
            f"no task or model is called {unknown[0]}: expected some of {known}"
        )
    if named and not wanted:
        return []
    return [
        cell
        for cell in cells
        if cell.task in ((wanted & tasks) or tasks)
        and cell.model.lower() in ((wanted & models) or models)
    ]


def with_figure6(only: Collection[str]) -> bool:
    """Whether the names ask for figure 6: it is part of everything."""
    return not only or FIGURE6 in {name.lower() for name in only}


def settings_as_json(
    settings: ProbeSettings | ClassifierSettings | UNetSettings | CNNSettings,
) -> dict[str, Any]:
    """Return settings as JSON values; a file of weights by its hash, independent of its path."""
    if isinstance(settings, ProbeSettings | ClassifierSettings):
        values: dict[str, Any] = json.loads(json.dumps(settings.to_dict()))
        return values
    values = json.loads(settings.to_json())
    if isinstance(settings.start, Path):
        values["start"] = f"file {file_hash(settings.start)[:12]}"
    return values
