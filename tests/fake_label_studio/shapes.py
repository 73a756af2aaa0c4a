"""Rows as the server's JSON: every key that the real one sends, in its forms."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from statistics import fmean
from typing import Any

from tests.fake_label_studio.database import Database
from tests.fake_label_studio.rows import (
    Annotation,
    Backend,
    Draft,
    Prediction,
    Project,
    Storage,
    Tab,
    Task,
    Upload,
    User,
    Webhook,
)

#: Characters of a column that stacks results.
_STACKED = 500


def time(when: datetime | None) -> str | None:
    """A time as Django REST framework writes it: no fraction at all where the microsecond is 0."""
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _of(row: Any, names: str) -> dict[str, Any]:
    """Columns of a row as they are, times as text, and rows of other tables by their numbers."""
    found = {name: getattr(row, name) for name in names.split()}
    return {
        name: time(value) if isinstance(value, datetime) else getattr(value, "id", value)
        for name, value in found.items()
    }


def _all(value: Any, names: str) -> dict[str, Any]:
    """Keys that the fake always gives this value."""
    return dict.fromkeys(names.split(), value)


def user(row: User) -> dict[str, Any]:
    return {
        **_of(row, "id email date_joined"),
        **_all("", "first_name last_name username phone"),
        **_all(None, "avatar allow_newsletters"),
        "last_activity": time(row.date_joined),
        "custom_hotkeys": {},
        "initials": row.email[:2],
        "active_organization": 1,
        "active_organization_meta": {"title": "Label Studio", "email": row.email},
    }


def project(db: Database, row: Project, viewer: User, *, counted: bool = True) -> dict[str, Any]:
    """A project as `viewer` sees it; `counted` is False in the answer to its creation."""
    config = row.config
    tasks = db.tasks_of(row)
    mine = {t.id for t in tasks if any(a.completed_by == viewer.id for a in t.annotations)}
    waiting = {t.id for t in tasks if not t.is_labeled}
    submitted = [a for t in tasks for a in t.submitted]
    counts: dict[str, int | None] = {
        "num_tasks_with_annotations": sum(1 for t in tasks if t.submitted),
        "task_number": len(tasks),
        "useful_annotation_number": sum(
            1 for a in submitted if not a.ground_truth and a.result is not None
        ),
        "ground_truth_number": sum(1 for a in submitted if a.ground_truth),
        "skipped_annotations_number": sum(len(t.skipped) for t in tasks),
        "total_annotations_number": len(submitted),
        "total_predictions_number": sum(len(t.predictions) for t in tasks),
        "finished_task_number": sum(1 for t in tasks if t.is_labeled),
    }
    maker = user(row.created_by)
    return {
        **_of(row, "id created_at"),
        **row.settings,
        **(counts if counted else dict.fromkeys(counts)),
        "organization": 1,
        "created_by": {
            key: maker[key] for key in ["id", "first_name", "last_name", "email", "avatar"]
        },
        "control_weights": config.weights,
        "parsed_label_config": config.controls,
        "config_has_control_tags": bool(config.controls),
        "queue_total": len(mine | waiting),
        "queue_done": len(mine),
        "config_suitable_for_bulk_annotation": False,
        "state": None,
    }


def storage(row: Storage) -> dict[str, Any]:
    return {
        **_of(row, "id created_at project"),
        **_all(None, "last_sync last_sync_count last_sync_job traceback"),
        **{key: row.settings.get(key) for key in ("path", "regex_filter", "title", "description")},
        **{key: row.settings.get(key, False) for key in ("use_blob_urls", "recursive_scan")},
        "type": "localfiles",
        "synchronizable": True,
        "status": "initialized",
        "meta": {},
    }


def upload(row: Upload) -> dict[str, Any]:
    return {**_of(row, "id file"), "size": len(row.content)}


def prediction(row: Prediction) -> dict[str, Any]:
    return {
        **_of(row, "id result model_version score created_at updated_at task"),
        **_all(None, "cluster neighbors model model_run"),
        "created_ago": "0\xa0minutes",
        "mislabeling": 0.0,
        "project": row.task.project.id,
    }


def annotation(db: Database, row: Annotation, *, whole_user: bool = False) -> dict[str, Any]:
    """`whole_user` is what GET of one task does: completed_by is an object there, else a number."""
    who = db.users[row.completed_by]
    shown = ("id", "first_name", "last_name", "avatar", "email", "initials")
    return {
        **_of(row, "id result was_cancelled ground_truth created_at updated_at lead_time task"),
        **_of(row, "updated_by parent_prediction parent_annotation"),
        **_all(None, "draft_created_at import_id last_action last_created_by"),
        "created_username": f" {who.email}, {who.id}",
        "created_ago": "0\xa0minutes",
        "completed_by": {key: user(who)[key] for key in shown} if whole_user else who.id,
        "bulk_created": False,
        "project": row.task.project.id,
    }


def draft(row: Draft) -> dict[str, Any]:
    return {
        **_of(row, "id result created_at updated_at task"),
        **_all(None, "lead_time import_id annotation"),
        "user": row.user.email,
        "created_username": f"{row.user.email}, {row.user.id}",
        "created_ago": "0\xa0minutes",
        "was_postponed": False,
    }


def task_columns(row: Task) -> dict[str, Any]:
    """What every form of a task has."""
    return {
        **_of(
            row, "id data meta created_at updated_at is_labeled overlap inner_id project updated_by"
        ),
        **_all(0, "comment_count unresolved_comment_count"),
        **_all(None, "last_comment_updated_at file_upload"),
        "total_annotations": len(row.submitted),
        "cancelled_annotations": len(row.skipped),
        "total_predictions": len(row.predictions),
        "comment_authors": [],
    }


def written_task(db: Database, row: Task) -> dict[str, Any]:
    """A task as PATCH answers it."""
    return task_columns(row) | {
        "annotations": [annotation(db, a) for a in row.annotations],
        "predictions": [prediction(p) for p in row.predictions],
    }


def listed_task(
    db: Database, row: Task, viewer: User, *, all_fields: bool, stacked: bool = True
) -> dict[str, Any]:
    """A task as the data manager lists it, and (not `stacked`) as GET of one task shows it.

    Skipped annotations are among `annotations`; drafts are `viewer`'s own only.
    """
    versions = {p.model_version for p in row.predictions}
    scores = [p.score for p in row.predictions if p.score is not None]
    leads = [a.lead_time for a in row.annotations if a.lead_time is not None]
    shown = task_columns(row) | {
        "updated_by": [] if row.updated_by is None else [{"user_id": row.updated_by}],
        "drafts": [],
        "annotators": [],
        **_all("", "annotations_results predictions_results annotations_ids"),
        "predictions_model_versions": "",
        "storage_filename": None,
    }
    if not all_fields:
        return shown
    return shown | {
        "annotations": [annotation(db, a, whole_user=not stacked) for a in row.annotations],
        "predictions": [prediction(p) for p in row.predictions],
        "drafts": [draft(d) for d in row.drafts if d.user is viewer],
        "draft_exists": bool(row.drafts),
        "annotators": sorted({a.completed_by for a in row.annotations}),
        "completed_at": time(row.completed_at),
        "avg_lead_time": fmean(leads) if leads else None,
        "annotations_ids": ",".join(str(a.id) for a in row.annotations),
        "predictions_score": fmean(scores) if scores else None,
        "predictions_model_versions": ",".join(sorted(versions)),
        "annotations_results": _stack([a.result for a in row.annotations]) if stacked else "",
        "predictions_results": _stack([p.result for p in row.predictions]) if stacked else "",
    }


def next_task(row: Task, viewer: User, queue: str, predictions: list[Prediction]) -> dict[str, Any]:
    """A task as the label stream gives it: with those of its predictions that it shows."""
    return task_columns(row) | {
        "predictions": [prediction(p) for p in predictions],
        "annotations": [],
        "drafts": [draft(d) for d in row.drafts if d.user is viewer],
        "updated_by": [] if row.updated_by is None else [{"user_id": row.updated_by}],
        "unique_lock_id": f"{row.id}-{viewer.id}",
        "queue": queue,
    }


def tab(row: Tab) -> dict[str, Any]:
    data = dict(row.data)
    if row.filters is not None:
        data["filters"] = row.filters
    if row.ordering:
        data["ordering"] = row.ordering
    return {**_of(row, "id order user project"), "data": data}


def backend(row: Backend) -> dict[str, Any]:
    """The password is never shown."""
    defaults = {
        "is_interactive": False,
        "title": "default",
        "auth_method": "NONE",
        "basic_auth_user": "",
        "description": "",
        "extra_params": None,
        "timeout": 100.0,
    }
    return {
        **_of(row, "id state model_version created_at updated_at project"),
        **{key: row.settings.get(key, default) for key, default in defaults.items()},
        "url": row.settings["url"],
        "readable_state": {"CO": "Connected", "DI": "Disconnected"}[row.state],
        "error_message": None,
        "basic_auth_pass_is_set": bool(row.settings.get("basic_auth_pass")),
        "auto_update": True,
    }


def webhook(row: Webhook) -> dict[str, Any]:
    flags = ("send_payload", "send_for_all_actions", "is_active")
    return {
        **_of(row, "id project created_at updated_at"),
        **{key: row.settings.get(key, True) for key in flags},
        "organization": 1,
        "url": row.settings["url"],
        "headers": row.settings.get("headers", {}),
        "actions": row.settings.get("actions", []),
    }


def _stack(results: list[Any]) -> str:
    text = ",".join(json.dumps(result, ensure_ascii=False) for result in results)
    return text[:_STACKED].replace(',"', ', "').replace("],[", "] [").replace('"', "")
