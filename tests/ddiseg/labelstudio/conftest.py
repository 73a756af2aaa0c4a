"""A workspace beside a scripted Label Studio; nobody waits."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator

import pytest

from ddiseg.catalogue.tables import Image
from ddiseg.labelstudio import client, http
from ddiseg.labelstudio.folder import Folder
from ddiseg.workspace.workspace import Workspace
from tests.ddiseg.labelstudio.studio import Studio
from tests.fake_label_studio import FakeLabelStudio


@pytest.fixture(scope="session")
def certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch, certificates: ssl.SSLContext) -> list[float]:
    """The seconds of each pause before something is tried again; none is taken."""
    taken: list[float] = []
    monkeypatch.setattr(time, "sleep", taken.append)
    # Reading the certificates of all authorities takes longer than a pull; nothing here is https.
    monkeypatch.setattr(ssl, "create_default_context", lambda **_files: certificates)
    return taken


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of a fifth of a second."""
    for module in (client, http):
        monkeypatch.setattr(module, "TIMEOUT", (0.2, 0.2))


@pytest.fixture
def studio(workspace: Workspace, naps: list[float]) -> Iterator[Studio]:
    """An embedded server; see `Studio`."""
    with FakeLabelStudio(document_root=Folder(workspace.root).media) as server:
        yield Studio(workspace, server)


@pytest.fixture
def team(workspace: Workspace, naps: list[float]) -> Iterator[Studio]:
    """A team's server: pictures are uploaded."""
    with FakeLabelStudio() as server:
        yield Studio(workspace, server, embedded=False)


@pytest.fixture
def images(studio: Studio) -> list[Image]:
    """Three images in the hands of annotators, as tasks 1 to 3, all painted."""
    images = studio.add_images(3)
    studio.predict(images)
    studio.push()
    return images
