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


def user(row: User) -> dict[str, Any]:
    return {
        "id": row.id,
        "first_name": "",
        "last_name": "",
        "username": "",
        "email": row.email,
        "last_activity": time(row.date_joined),
        "custom_hotkeys": {},
        "avatar": None,
        "initials": row.email[:2],
        "phone": "",
        "active_organization": 1,
        "active_organization_meta": {"title": "Label Studio", "email": row.email},
        "allow_newsletters": None,
        "date_joined": time(row.date_joined),
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
    return (
        {"id": row.id}
        | row.settings
        | (counts if counted else dict.fromkeys(counts))
        | {
            "organization": 1,
            "created_by": {
                "id": row.created_by.id,
                "first_name": "",
                "last_name": "",
                "email": row.created_by.email,
                "avatar": None,
            },
            "created_at": time(row.created_at),
            "control_weights": config.weights,
            "parsed_label_config": config.controls,
            "config_has_control_tags": bool(config.controls),
            "queue_total": len(mine | waiting),
            "queue_done": len(mine),
            "config_suitable_for_bulk_annotation": False,
            "state": None,
        }
    )


def storage(row: Storage) -> dict[str, Any]:
    return {
        "id": row.id,
        "type": "localfiles",
        "synchronizable": True,
        "path": row.settings["path"],
        "regex_filter": row.settings.get("regex_filter"),
        "use_blob_urls": row.settings.get("use_blob_urls", False),
        "last_sync": None,
        "last_sync_count": None,
        "last_sync_job": None,
        "status": "initialized",
        "traceback": None,
        "meta": {},
        "title": row.settings.get("title"),
        "description": row.settings.get("description"),
        "created_at": time(row.created_at),
        "recursive_scan": row.settings.get("recursive_scan", False),
        "project": row.project.id,
    }


def upload(row: Upload) -> dict[str, Any]:
    return {"id": row.id, "file": row.file, "size": len(row.content)}


def prediction(row: Prediction) -> dict[str, Any]:
    return {
        "id": row.id,
        "result": row.result,
        "model_version": row.model_version,
        "created_ago": "0\xa0minutes",
        "score": row.score,
        "cluster": None,
        "neighbors": None,
        "mislabeling": 0.0,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "model": None,
        "model_run": None,
        "task": row.task.id,
        "project": row.task.project.id,
    }


def annotation(db: Database, row: Annotation, *, whole_user: bool = False) -> dict[str, Any]:
    """`whole_user` is what GET of one task does: completed_by is an object there, else a number."""
    who = db.users[row.completed_by]
    shown = ("id", "first_name", "last_name", "avatar", "email", "initials")
    return {
        "id": row.id,
        "result": row.result,
        "created_username": f" {who.email}, {who.id}",
        "created_ago": "0\xa0minutes",
        "completed_by": {key: user(who)[key] for key in shown} if whole_user else who.id,
        "was_cancelled": row.was_cancelled,
        "ground_truth": row.ground_truth,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "draft_created_at": None,
        "lead_time": row.lead_time,
        "import_id": None,
        "last_action": None,
        "bulk_created": False,
        "task": row.task.id,
        "project": row.task.project.id,
        "updated_by": row.updated_by,
        "parent_prediction": row.parent_prediction,
        "parent_annotation": row.parent_annotation,
        "last_created_by": None,
    }


def draft(row: Draft) -> dict[str, Any]:
    return {
        "id": row.id,
        "user": row.user.email,
        "created_username": f"{row.user.email}, {row.user.id}",
        "created_ago": "0\xa0minutes",
        "result": row.result,
        "lead_time": None,
        "was_postponed": False,
        "import_id": None,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "task": row.task.id,
        "annotation": None,
    }


def task_columns(row: Task) -> dict[str, Any]:
    """What every form of a task has."""
    return {
        "id": row.id,
        "data": row.data,
        "meta": row.meta,
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "is_labeled": row.is_labeled,
        "overlap": row.overlap,
        "inner_id": row.inner_id,
        "total_annotations": len(row.submitted),
        "cancelled_annotations": len(row.skipped),
        "total_predictions": len(row.predictions),
        "comment_count": 0,
        "unresolved_comment_count": 0,
        "last_comment_updated_at": None,
        "project": row.project.id,
        "updated_by": row.updated_by,
        "file_upload": None,
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
        "annotations_results": "",
        "predictions_results": "",
        "annotations_ids": "",
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
    return {
        "id": row.id,
        "data": data,
        "order": row.order,
        "user": row.user.id,
        "project": row.project.id,
    }


def backend(row: Backend) -> dict[str, Any]:
    """The password is never shown."""
    given = row.settings
    return {
        "id": row.id,
        "state": row.state,
        "readable_state": {"CO": "Connected", "DI": "Disconnected"}[row.state],
        "is_interactive": given.get("is_interactive", False),
        "url": given["url"],
        "error_message": None,
        "title": given.get("title", "default"),
        "auth_method": given.get("auth_method", "NONE"),
        "basic_auth_user": given.get("basic_auth_user", ""),
        "basic_auth_pass_is_set": bool(given.get("basic_auth_pass")),
        "description": given.get("description", ""),
        "extra_params": given.get("extra_params"),
        "model_version": row.model_version,
        "timeout": given.get("timeout", 100.0),
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
        "auto_update": True,
        "project": row.project.id,
    }


def webhook(row: Webhook) -> dict[str, Any]:
    given = row.settings
    return {
        "id": row.id,
        "organization": 1,
        "project": row.project.id,
        "url": given["url"],
        "send_payload": given.get("send_payload", True),
        "send_for_all_actions": given.get("send_for_all_actions", True),
        "headers": given.get("headers", {}),
        "is_active": given.get("is_active", True),
        "actions": given.get("actions", []),
        "created_at": time(row.created_at),
        "updated_at": time(row.updated_at),
    }


def _stack(results: list[Any]) -> str:
    text = ",".join(json.dumps(result, ensure_ascii=False) for result in results)
    return text[:_STACKED].replace(',"', ', "').replace("],[", "] [").replace('"', "")
