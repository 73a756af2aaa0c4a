"""What is said before any work where a cluster can't do it; no Ray runs here."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from syrupy.assertion import SnapshotAssertion

from annotation_protocol.command_line import missing_package
from ddiseg.compute import ray_cluster
from ddiseg.compute.job import Resources
from ddiseg.compute.ray_cluster import (
    Cluster,
    _check_answers,
    _join,
    _refusal,
    _sigterm_kept,
    connect,
)
from ddiseg.compute.ray_nodes import Node
from ddiseg.errors import InputError, WorkspaceError
from tests.wording import Refusal

GB = 1_000_000_000


@pytest.fixture
def server() -> Iterator[Callable[[bytes], str]]:
    """server(answer): a server that answers so, or not at all; its address."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(answer: bytes) -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):  # who asks hangs up
            connection.recv(100)
            connection.sendall(answer)
            connection.recv(100)

    def start(answer: bytes) -> str:
        if answer:
            threading.Thread(target=serve, args=(answer,), daemon=True).start()
        return f"127.0.0.1:{listening.getsockname()[1]}"

    with listening:
        yield start


def test_address__nothing_listens(refusal: Refusal) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    with refusal(WorkspaceError):
        _check_answers(address)


def test_address__web_server(server: Callable[[bytes], str], refusal: Refusal) -> None:
    with refusal(WorkspaceError):
        _check_answers(server(b"HTTP/1.1 400 Bad Request\r\n\r\n"))


def test_address__server_that_never_answers(
    server: Callable[[bytes], str], refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "ANSWER", 0.05)
    with refusal(WorkspaceError):
        _check_answers(server(b""))


def test_address__grpc_server(server: Callable[[bytes], str]) -> None:
    _check_answers(server(b"\0\0\0\4\0\0\0\0\0"))


@pytest.mark.parametrize("address", ["nonsense", "host:", "host:70000", "ray://host:10001"])
def test_address__no_address(address: str, refusal: Refusal) -> None:
    pytest.importorskip("ray")
    with refusal(InputError):
        _join(address)


def test_refusal__another_version_of_the_cluster(wording: SnapshotAssertion) -> None:
    error = RuntimeError(
        "Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n    Python: 3.10.1\n"
        "This process on node 10.0.0.1:6379 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
    )
    assert _refusal("10.0.0.1:6379", error) == wording


def test_connect__ray_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, wording: SnapshotAssertion
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError) as error, connect("local"):
        pass
    assert missing_package(error.value) == wording


def _node(name: str, cpus: int, gpus: int = 0, memory: int = 64 * GB) -> Node:
    return Node(name, name, cpus, gpus, memory)


def test_resources__a_processor_for_each_worker() -> None:
    cluster = Cluster([_node("head", 0), _node("a", 8), _node("b", 4)], alone=False)
    assert cluster.resources("auto") == Resources(cpus=1, workers=12)


def test_resources__as_many_networks_as_fit_into_memory() -> None:
    cluster = Cluster([_node("a", 16, memory=16 * GB)], alone=False)
    found = cluster.resources("cpu", network=2 * GB)
    assert found == Resources(cpus=8, workers=2)


def test_resources__gpus_where_there_are_any() -> None:
    cluster = Cluster([_node("a", 16, 2), _node("b", 8)], alone=False)
    assert cluster.resources("auto") == Resources(8, 1, 2, "cuda")
    assert cluster.resources("cpu") == Resources(cpus=1, workers=24)


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_resources__no_gpu(device: str, refusal: Refusal) -> None:
    with refusal(InputError):
        Cluster([_node("a", 2), _node("b", 2)], alone=False).resources(device)


def test_resources__no_processor(refusal: Refusal) -> None:
    with refusal(InputError):
        Cluster([_node("head", 0)], alone=False).resources("cpu")


def test_head__gone_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, wording: SnapshotAssertion
) -> None:
    monkeypatch.setattr(ray_cluster, "WATCH", 0.01)
    with socket.create_server(("127.0.0.1", 0)) as head:
        address = f"127.0.0.1:{head.getsockname()[1]}"
        with ray_cluster._head_watched(address):
            time.sleep(0.05)
    assert not caplog.records, "it answered"
    with ray_cluster._head_watched(address):
        waited_until = time.monotonic() + 20
        while not caplog.records and time.monotonic() < waited_until:
            time.sleep(0.01)
        time.sleep(0.05)
    (told,) = caplog.messages
    assert told == wording


def test_console__handlers_of_others_and_files_stay_as_they_were() -> None:
    """Ray Data's logger also has handlers of the program, and of a test that looks at the log."""

    class OfRay(logging.StreamHandler):  # type: ignore[type-arg]
        __module__ = "ray.x"

    class FileOfRay(logging.Handler):
        __module__ = "ray.x"

    own, of_ray, file = logging.StreamHandler(), OfRay(), FileOfRay()
    ray_cluster._hush_console([own, of_ray, file])
    assert (own.level, of_ray.level, file.level) == (0, logging.CRITICAL + 1, 0)


def test_sigterm__is_afterwards_what_it_was() -> None:
    """Ray replaces the handler; commands that follow in this process stop as they did before."""
    before = signal.getsignal(signal.SIGTERM)
    with _sigterm_kept():
        signal.signal(signal.SIGTERM, lambda *_: None)
    assert signal.getsignal(signal.SIGTERM) is before
