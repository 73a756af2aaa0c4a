"""The main job, command by command, on one machine and beyond it: the same masks, bit for bit.

One machine: SQLite, folders, local workers. Beyond it: PostgreSQL, buckets for the store, the sources and
the release, and a Ray cluster of two nodes. The people at Label Studio are a script.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load

from annotation_protocol.csv_files import csv_text
from ddiseg.catalogue import Purpose
from ddiseg.cli.common import run
from ddiseg.cli.main import cli
from ddiseg.ingest import rendered
from ddiseg.labelstudio.connection import TOKEN_VARIABLE
from ddiseg.model import train
from ddiseg.workspace.store import Kind
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import Studio
from tests.ddiseg.spots import one_thread, tiny_weights
from tests.fake_label_studio import FakeLabelStudio
from tests.fedd.conftest import QUICK
from tests.object_store import ObjectStore

__all__ = ["one_thread", "tiny_weights"]

PHANTOMS, SIDE = 12, 64


@pytest.fixture
def phantoms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photographs`, in DDI's layout, and `truth`: their masks."""
    monkeypatch.setattr(rendered, "SIZE", SIDE)
    rows: list[Sequence[object]] = [rendered.COLUMNS]
    for name in ("photographs", "truth"):
        (tmp_path / name).mkdir()
    for number in range(1, PHANTOMS + 1):
        job = (tmp_path / "photographs", tmp_path / "truth", number, 0)
        rows.append(rendered._render_one(job))
    (tmp_path / "photographs" / "ddi_metadata.csv").write_text(csv_text(rows))
    return tmp_path


@dataclass
class Places:
    """Where a job keeps its things."""

    root: Path
    photographs: str
    masks: str
    release: str
    init: list[str] = field(default_factory=list)
    engine: list[str] = field(default_factory=list)  #: options of the commands that compute


@dataclass
class Result:
    """What a job made."""

    masks: dict[str, list[tuple[str, str | None, str]]]  #: hash, person and state, by image
    embeddings: bytes
    model: dict[str, bytes]  #: the tensors of its file
    files: dict[str, bytes]  #: of the release
    said: dict[str, str]  #: by command


@pytest.mark.ray
@pytest.mark.process
@pytest.mark.filterwarnings("ignore")
def test_main_job__same_masks_on_postgresql_and_s3_and_ray(
    phantoms: Path,
    postgres_url: str,
    object_store: ObjectStore,
    ray_address: str,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(train, "default_settings", lambda _config: QUICK)
    for folder in ("photographs", "truth"):
        for path in (phantoms / folder).iterdir():
            object_store.write(f"{folder}/{path.name}", path.read_bytes())
    bucket = f"s3://{object_store.bucket}"
    here = Places(
        phantoms / "here",
        str(phantoms / "photographs"),
        str(phantoms / "truth"),
        str(phantoms / "release"),
    )
    beyond = Places(
        phantoms / "beyond",
        f"{bucket}/photographs",
        f"{bucket}/truth",
        f"{bucket}/release",
        ["--catalogue", postgres_url, "--store", object_store.url],
        ["--engine", "ray", "--ray-address", ray_address],
    )
    job = _Job(tiny_weights, monkeypatch, capsys)
    local = job.run(here)
    local.files = {p.name: p.read_bytes() for p in Path(here.release).rglob("*") if p.is_file()}
    far = job.run(beyond)
    stored = object_store.objects()
    far.files = {k.rpartition("/")[2]: v for k, v in stored.items() if k.startswith("release/")}
    assert far.masks == local.masks
    assert far.embeddings == local.embeddings
    assert far.model == local.model
    assert far.said == local.said
    assert far.files.keys() == local.files.keys()
    for name in far.files:
        assert _timeless(name, far.files[name]) == _timeless(name, local.files[name]), name
    drawn = [mask for masks in local.masks.values() for mask in masks]
    assert {person is None for _, person, _ in drawn} == {True, False}
    assert {state for *_, state in drawn} >= {"accepted", "submitted"}
    assert sum(kind in key for key in stored for kind in ("/images/", "/masks/")) > PHANTOMS
    assert not (beyond.root / "store").exists()
    assert not (beyond.root / "catalogue.sqlite").exists()


@dataclass
class _Job:
    weights: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, at: Places) -> Result:
        said: dict[str, str] = {}

        def do(*words: str) -> None:
            self.capsys.readouterr()
            assert run(cli, ["--workspace", str(at.root), "--output", "json", *words]) == 0, words
            said[" ".join(words[:2])] = self.capsys.readouterr().out

        assert run(cli, ["init", str(at.root), *at.init]) == 0
        people = ["--annotator", "anna", "--reviewer", "ben"]
        learned = ["--backbone", str(self.weights), "--device", "cpu"]
        do("import", at.photographs, "--source", "rendered", *at.engine)
        do("subset", "draw", "first", "--per-tone", "2")
        do("masks", "import", at.masks, "--as", "png", "--subset", "first", *people)
        do("refresh", *learned, *at.engine)
        do("prelabel", "--device", "cpu", *at.engine)
        do("batch", "draw", "week-1", "--size", "4")
        with self.people_at_work(at) as studio:
            do("label", "connect", studio.server.url)
            do("label", "push", "--batch", "week-1")
            tasks = studio.tasks()
            for task in tasks[:3]:
                studio.submit_unchanged(task.remote_id or 0)
            studio.skip(tasks[3].remote_id or 0, "unreadable")
            do("label", "pull")
            do("review", "push", "--sample", "100")
            reviews = studio.tasks(Purpose.REVIEW)
            for task in reviews[:2]:
                studio.decide(task.remote_id or 0, "accept")
            do("review", "pull")
        do("refresh", *learned, *at.engine)
        do("prelabel", "--device", "cpu", *at.engine)
        do("evaluate", "--truth", str(at.root.parent / "truth"), *at.engine)
        options = ["--include-predictions", "--keep-names"]
        do("export", "--format", "coco", "--to", at.release, *options)
        do("verify")
        report = json.loads(said["verify"])
        assert report["problems"] == []
        kept = ("subset draw", "batch draw", "evaluate --truth")
        return _result(at.root, {name: _plain(said[name]) for name in kept})

    @contextmanager
    def people_at_work(self, at: Places) -> Iterator[Studio]:
        with FakeLabelStudio() as server:
            self.monkeypatch.setenv(TOKEN_VARIABLE, server.token)
            workspace = Workspace.open(at.root)
            try:
                yield Studio(workspace, server, embedded=False)
            finally:
                workspace.catalogue.close()


def _result(root: Path, said: dict[str, str]) -> Result:
    workspace = Workspace.open(root)
    catalogue = workspace.catalogue
    images = {image.id: image for image in catalogue.images.select()}
    masks = {
        image.name: [
            (mask.content_hash, mask.annotator, image.state)
            for mask in catalogue.masks.of_image(image.id)
        ]
        for image in images.values()
    }
    for found in masks.values():
        for digest, *_ in found:
            assert workspace.store.exists(Kind.MASK, digest)
    version = catalogue.models.current()
    embeddings = b"".join(
        vectors.tobytes()
        for vectors in _embeddings(workspace, version.backbone_hash, version.settings)
    )
    tensors = load(workspace.store.get(Kind.MODEL, version.file_hash))
    workspace.catalogue.close()
    return Result(masks, embeddings, {k: v.tobytes() for k, v in tensors.items()}, {}, said)


def _embeddings(workspace: Workspace, backbone: str, settings: Any) -> Iterator[Any]:
    from ddiseg.catalogue.embeddings import embedding_space

    ids, vectors = workspace.catalogue.embeddings.of(embedding_space(backbone, settings))
    order = ids.argsort()
    yield ids[order]
    yield vectors[order]


#: What differs between two runs of the same job.
_OF_THE_RUN = (
    "created_at",
    "mask_created_at",
    "date_created",
    "version",
    "content",
    "sha256",
    "seconds",
    "bytes",
)


def _plain(text: str) -> str:
    return json.dumps(_without_times(json.loads(text)), sort_keys=True)


def _timeless(name: str, data: bytes) -> object:
    return _without_times(json.loads(data)) if name.endswith(".json") else data


def _without_times(content: Any) -> Any:
    if isinstance(content, dict):
        return {k: _without_times(v) for k, v in content.items() if k not in _OF_THE_RUN}
    return [_without_times(each) for each in content] if isinstance(content, list) else content
