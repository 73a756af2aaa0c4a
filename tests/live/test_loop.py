"""The loop with a real Label Studio: its ML backend, its webhooks, a round, and a click."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from annotation_protocol import load_protocol
from ddiseg.catalogue import Split
from ddiseg.ingest.rendered import render_ddi
from ddiseg.workspace.workspace import Workspace
from tests.live.browser import browser
from tests.live.conftest import DDISEG, Studio, annotation_tasks, call, free_port
from tests.live.test_annotate_and_review import person

IMAGES, FIRST, LATER = 20, 4, 10
REVIEWED = ("--as", "png", "--annotator", "reader-1", "--reviewer", "reader-2")


@pytest.fixture
def root(tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of phantoms at the session's server: four masks accepted and learned from."""
    render_ddi(tmp_path / "ddi", tmp_path / "masks", IMAGES, seed=7)
    root = tmp_path / "work"
    call(root, "init")
    call(root, "import", tmp_path / "ddi")
    _accept(tmp_path, root, slice(FIRST))
    call(root, "refresh", "--device", "cpu")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.accounts["admin"].token)
    call(root, "label", "connect", studio.url)
    return root


def test_loop__from_an_opened_task_to_new_predictions(
    root: Path, studio: Studio, tmp_path: Path, tell: Callable[[str], None]
) -> None:
    pushed = call(root, "label", "push")
    assert pushed["arms"].keys() == {"bare"}, "nothing is predicted before somebody opens a task"
    with _server(root) as url, browser() as opened:
        call(root, "label", "backend", url, "--clicks")
        annotator = person(opened, studio, "annotator")
        annotator.label_all(pushed["project"])
        assert annotator.regions() >= {"lesion", "skin"}, "the server predicts an opened task"
        annotator.shot("10-predicted-by-the-server")
        annotator.ask_by_click("ruler", (0.1, 0.1))
        annotator.shot("11-a-region-from-a-click")
        annotator.accept_suggestion()
        annotator.submit()
        seconds = _until(lambda: _states(root)[FIRST] == "submitted")
        tell(f"from a submit to the catalogue by webhook: {seconds:.1f} s")
        _check_the_clicked_region(root)
        metrics = requests.get(f"{url}/metrics", auth=_account(root), timeout=30).text
        assert 'ddiseg_webhooks_total{outcome="queued"}' in metrics
    call(root, "label", "backend", "--forget")

    _accept(tmp_path, root, slice(FIRST, FIRST + LATER + 1))  # one of them was submitted
    before = _predicted_by(root)
    steps = {s["step"]: s["said"] for s in call(root, "loop", "run", "--once")["steps"]}

    assert steps["refresh"].startswith("fedd-2, from "), steps
    catalogue = Workspace.open(root).catalogue
    gate = catalogue.models.get("fedd-2").decision
    assert gate is not None
    splits = catalogue.splits.all().values()
    assert gate.holdout.images == sum(split is Split.HOLDOUT for split in splits)
    if gate.passed:
        after = _predicted_by(root)
        assert {after[task] for task in before} == {"fedd-2"}, "open tasks show the new version"
    assert call(root, "verify")["ok"]


def _accept(folder: Path, root: Path, part: slice) -> None:
    """The true masks of some images arrive, drawn and reviewed elsewhere."""
    batch = folder / f"reviewed-{part.start}-{part.stop}"
    batch.mkdir()
    states = _states(root)
    for number, path in list(enumerate(sorted((folder / "masks").iterdir())))[part]:
        if states[number] not in ("submitted", "accepted"):
            (batch / path.name).write_bytes(path.read_bytes())
    call(root, "masks", "import", batch, *REVIEWED)


@contextmanager
def _server(root: Path) -> Iterator[str]:
    """`ddiseg serve` in another process; it ends when it is told to, and says so."""
    port = free_port()
    command = [DDISEG, "--workspace", root, "serve", "--port", port, "--every", "1000"]
    with subprocess.Popen([*map(str, command), "--device", "cpu"]) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _until(lambda: _answers(url))
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == -signal.SIGTERM


def _answers(url: str) -> bool:
    try:
        return bool(requests.get(f"{url}/health", timeout=5).json()["status"] == "UP")
    except requests.ConnectionError:
        return False


def _until(true: Callable[[], bool]) -> float:
    """Wait until something is so; the seconds that it took."""
    started = time.monotonic()
    while not true():
        assert time.monotonic() - started < 120, "it never comes"
        time.sleep(0.2)
    return time.monotonic() - started


def _account(root: Path) -> tuple[str, str]:
    from ddiseg.server.auth import ensure_credentials

    known = ensure_credentials(root)
    return known.user, known.password


def _states(root: Path) -> list[str]:
    return [image.state for image in Workspace.open(root).catalogue.images.select()]


def _check_the_clicked_region(root: Path) -> None:
    """The region that was clicked for is in the mask, and nothing else changed."""
    workspace = Workspace.open(root)
    prediction, drawn = workspace.catalogue.masks.of_image(FIRST + 1)
    before, after = workspace.mask(prediction), workspace.mask(drawn)
    ruler = load_protocol().class_named("ruler").index
    changed = after != before
    assert changed.sum() > 100
    assert (after[changed] == ruler).all()


def _predicted_by(root: Path) -> dict[int, str]:
    """The name of the version whose mask each open task shows, by our number of the task."""
    workspace = Workspace.open(root)
    catalogue = workspace.catalogue
    open_images = {i.id for i in catalogue.images.select() if i.state == "in_labelling"}
    tasks = [t for t in annotation_tasks(workspace) if t.image_id in open_images and t.mask_id]
    shown = catalogue.masks.get([t.mask_id for t in tasks if t.mask_id])
    names = {m.id: m.name for m in catalogue.models.all()}
    return {t.id: names[shown[t.mask_id or 0].model_version_id or 0] for t in tasks}
