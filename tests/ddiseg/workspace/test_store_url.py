"""Where a store may be, and what no message repeats."""

from __future__ import annotations

from pathlib import Path

import pytest

from ddiseg.errors import WorkspaceError
from ddiseg.workspace.store import Store
from ddiseg.workspace.store_url import checked_store
from ddiseg.workspace.workspace import Workspace
from tests.wording import Refusal


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ""),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("S3://bucket/a b/é//", "s3://bucket/a b/é"),
        ("abfs://container@account.dfs.core.windows.net/p/", None),
        ("s3://arn:aws:s3:eu-west-1:123456789012:accesspoint/name/prefix", None),
        ("sftp://anna@host:22/folder", None),
    ],
)
def test_checked_store(given: str, kept: str | None) -> None:
    assert checked_store(given) == (given.rstrip("/") if kept is None else kept)


@pytest.mark.parametrize(
    "url",
    [
        "memory://store",
        "https://host/store",
        "zip://archive.zip",
        "s3://bucket/a::b",
        "s3://",
        "s3://bucket//twice",
        "s3://bucket/../up",
        "s3://bucket/\x1b[31m",
    ],
    ids=range(8),
)
def test_no_store_can_be_there(url: str, refusal: Refusal, tmp_path: Path) -> None:
    with refusal(WorkspaceError):
        Workspace.create(tmp_path / "w", store_url=url)
    assert not (tmp_path / "w").exists()
    with pytest.raises(WorkspaceError):
        Store(url)


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAX:HIDDEN@bucket/p",
        "s3://AKIAX:HID/DEN@bucket/p",
        "s3://HIDDEN@bucket",
        "abfs://c:HIDDEN@account/p",
        "abfs://c@account/p?sig=HIDDEN",
        "sftp://anna:HIDDEN@host/p",
        "sftp://anna:HIDDEN/x@host/p",
    ],
)
def test_secret_in_the_url__is_in_no_message(url: str, tmp_path: Path) -> None:
    for use in (Store, checked_store, lambda u: Workspace.create(tmp_path / "w", store_url=u)):
        with pytest.raises(WorkspaceError, match="leave them out") as error:
            use(url)
        assert "HID" not in str(error.value)
    assert not (tmp_path / "w").exists()
