"""The rows of the server's tables."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.fake_label_studio.labelling_config import Config, parse

#: What POST and PATCH can set on a project, with the value it starts with.
PROJECT_DEFAULTS: dict[str, Any] = {
    "title": "",
    "description": "",
    "label_config": "<View></View>",
    "expert_instruction": "",
    "show_instruction": False,
    "show_skip_button": True,
    "enable_empty_annotation": True,
    "show_annotation_history": False,
    "color": "#FFFFFF",
    "maximum_annotations": 1,
    "is_published": False,
    "model_version": "",
    "is_draft": False,
    "min_annotations_to_start_training": 0,
    "start_training_on_annotation_update": False,
    "show_collab_predictions": True,
    "sampling": "Sequential sampling",
    "show_ground_truth_first": False,
    "annotator_evaluation_enabled": False,
    "show_overlap_first": False,
    "overlap_cohort_percentage": 100,
    "task_data_login": None,
    "task_data_password": None,
    "evaluate_predictions_automatically": False,
    "skip_queue": "REQUEUE_FOR_OTHERS",
    "reveal_preannotations_interactively": False,
    "pinned_at": None,
}


@dataclass(eq=False)
class User:
    id: int
    email: str
    token: str  #: the legacy token
    date_joined: datetime


@dataclass(eq=False)
class Project:
    id: int
    created_by: User
    created_at: datetime
    settings: dict[str, Any]

    @property
    def config(self) -> Config:
        return parse(self.settings["label_config"])


@dataclass(eq=False)
class Prediction:
    id: int
    task: Task
    result: list[dict[str, Any]]
    model_version: str
    score: float | None
    created_at: datetime
    updated_at: datetime


@dataclass(eq=False)
class Annotation:
    id: int
    task: Task
    result: list[dict[str, Any]] | None
    completed_by: int
    updated_by: int | None
    created_at: datetime
    updated_at: datetime
    lead_time: float | None = None
    was_cancelled: bool = False  #: skipped
    ground_truth: bool = False
    parent_prediction: int | None = None
    parent_annotation: int | None = None
    unique_id: str | None = None


@dataclass(eq=False)
class Draft:
    """Begun, not submitted. The server shows it to `user` only, and moves no time for it."""

    id: int
    task: Task
    user: User
    result: list[dict[str, Any]]
    created_at: datetime
    updated_at: datetime


@dataclass(eq=False)
class Task:
    id: int
    project: Project
    inner_id: int
    data: dict[str, Any]
    meta: dict[str, Any]
    overlap: int
    created_at: datetime
    updated_at: datetime
    is_labeled: bool = False
    updated_by: int | None = None
    annotations: list[Annotation] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    drafts: list[Draft] = field(default_factory=list)
    locks: dict[int, datetime] = field(default_factory=dict)  #: user: since when

    @property
    def submitted(self) -> list[Annotation]:
        return [a for a in self.annotations if not a.was_cancelled]

    @property
    def skipped(self) -> list[Annotation]:
        return [a for a in self.annotations if a.was_cancelled]

    @property
    def completed_at(self) -> datetime | None:
        return self.annotations[-1].created_at if self.is_labeled and self.annotations else None

    def count_again(self, *, in_bulk: bool = False) -> None:
        """Whether as many people as wanted are done. One person's second answer counts nothing.

        Where a project's settings change, the server counts all tasks in bulk: answers without
        any result too.
        """
        if self.project.settings["skip_queue"] == "IGNORE_SKIPPED":
            done = self.annotations
        else:
            done = [a for a in self.submitted if in_bulk or a.result is not None]
        self.is_labeled = len({a.completed_by for a in done}) >= self.overlap


@dataclass(eq=False)
class Tab:
    """A view of the data manager."""

    id: int
    project: Project
    user: User
    data: dict[str, Any]
    order: int = 0
    filters: dict[str, Any] | None = None
    ordering: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Storage:
    id: int
    project: Project
    settings: dict[str, Any]
    created_at: datetime


@dataclass(eq=False)
class Upload:
    id: int
    project: Project
    file: str  #: upload/<project>/<8 hex>-<name>
    content: bytes


@dataclass(eq=False)
class Backend:
    """An ML backend that a project is connected with."""

    id: int
    project: Project
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    state: str = "DI"  #: disconnected, until it answers
    model_version: str | None = ""  #: what it says of itself


@dataclass(eq=False)
class Webhook:
    id: int
    project: Project
    settings: dict[str, Any]
    created_at: datetime
    updated_at: datetime
