"""Request bodies of the server, as far as they are read. Label Studio sends more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError
from starlette.concurrency import run_in_threadpool

from ddiseg.catalogue import JobKind
from ddiseg.labelstudio.task_payload import KEY

#: Maximum number of tasks in one request: Label Studio sends some hundreds.
MAX_TASKS = 20_000

START_TRAINING = "START_TRAINING"

#: Prefixes of webhook actions after which there may be something to pull.
_PULL_ACTIONS = ("ANNOTATION", "TASK")

#: A number that fits an integer column of every database.
_LARGEST = 2**31 - 1

Body = TypeVar("Body", bound=BaseModel)


class BadBodyError(Exception):
    """The body of a request is not valid; the message names the first bad field."""


class RequestedTask(BaseModel):
    """A task in a request; unexpected values make it an unknown task, not an error."""

    id: Any = None
    project: Any = None
    data: Any = None
    total_annotations: Any = None
    cancelled_annotations: Any = None
    drafts: Any = None

    @property
    def number(self) -> int | None:
        """The task's id on the labelling server."""
        return database_id(self.id)

    @property
    def key(self) -> str | None:
        """The key that a push wrote into the task data."""
        key = self.data.get(KEY) if isinstance(self.data, Mapping) else None
        return key if isinstance(key, str) else None

    @property
    def has_work(self) -> bool:
        """Whether a person has submitted, skipped or begun the task."""
        return bool(self.total_annotations or self.cancelled_annotations or self.drafts)


class _Params(BaseModel):
    context: dict[str, Any] | None = None


class PredictRequest(BaseModel):
    """The body of /predict."""

    tasks: list[RequestedTask] = Field(max_length=MAX_TASKS)
    project: str | None = None  #: as Label Studio names it: "3.1795406531"
    params: _Params | None = None

    @property
    def context(self) -> dict[str, Any] | None:
        """The clicks of an interactive request; None for an ordinary one."""
        return self.params.context if self.params else None


class SetupRequest(BaseModel):
    """The body of /setup; its token is neither kept nor used."""

    project: str | None = None


class WebhookRequest(BaseModel):
    """The body of a webhook: a hint, for the next pull sees what a lost one was about.

    Its fields: https://labelstud.io/guide/webhook_reference
    """

    action: str
    project: Any = None

    @property
    def kind(self) -> JobKind | None:
        """The job that the webhook asks for, if any."""
        if self.action == START_TRAINING:
            return JobKind.REFRESH
        return JobKind.PULL if self.action.startswith(_PULL_ACTIONS) else None

    @property
    def number(self) -> int | None:
        """The project's id on the labelling server."""
        number = self.project.get("id") if isinstance(self.project, Mapping) else None
        return number if isinstance(number, int) and not isinstance(number, bool) else None


class KeypointValue(BaseModel):
    """The position of a click: percent of the picture's width and height, from the top left."""

    x: float = Field(ge=0, le=100)
    y: float = Field(ge=0, le=100)
    keypointlabels: list[str] = Field(min_length=1, max_length=1)


class Keypoint(BaseModel):
    """A click, https://labelstud.io/tags/keypointlabels"""

    value: KeypointValue
    is_positive: bool = True


def database_id(value: Any) -> int | None:
    """Return `value` if it can be the id of a row; None otherwise."""
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    return value if is_integer and 0 < value <= _LARGEST else None


async def read_body(request: Request, model: type[Body]) -> Body:
    """Parse a body in a thread: megabytes of JSON on the event loop would block all requests.

    Raises:
        BadBodyError: the body is not valid.
    """
    data = await request.body()
    try:
        return await run_in_threadpool(model.model_validate_json, data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadBodyError(f"the body is not as expected: {where} {first['msg']}") from None


def route_options(body: type[BaseModel]) -> dict[str, Any]:
    """Return what FastAPI is to document of a route that calls `read_body` itself."""
    schema = {"application/json": {"schema": _inlined_schema(body)}}
    refusals = {400: "no such JSON", 401: "wrong credentials", 413: "too large", 503: "busy"}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": schema}},
        "responses": {status: {"description": text} for status, text in refusals.items()},
    }


def _inlined_schema(body: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a body without references."""
    schema = body.model_json_schema()
    definitions = schema.pop("$defs", {})

    def inlined(node: Any) -> Any:
        if isinstance(node, list):
            return [inlined(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return inlined(definitions[node["$ref"].rpartition("/")[2]])
        return {key: inlined(value) for key, value in node.items()}

    whole: dict[str, Any] = inlined(schema)
    return whole
