"""A connection to a Ray cluster, checked before any work: what is missing, on which node, and what to do."""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TypeVar

from ddiseg.compute.job import Job, Refused, Resources
from ddiseg.compute.ray_nodes import Node, check_nodes
from ddiseg.compute.ray_pool import map_on_actors
from ddiseg.errors import InputError, WorkspaceError
from ddiseg.workspace.store import Store

logger = logging.getLogger(__name__)

Q = TypeVar("Q")
R = TypeVar("R")

#: The address that starts Ray on this machine, for one run.
LOCAL = "local"

#: The variable that Ray itself reads.
VARIABLE = "RAY_ADDRESS"

#: Seconds in which a cluster must answer.
ANSWER = 5.0

#: Seconds from one look for the head of the cluster to the next, and how many in vain are told.
WATCH, MISSED = 5.0, 3

#: Bytes of the object store of a Ray that runs on this machine alone: batches and weights.
OBJECT_STORE = 1_000_000_000

#: Memory that a worker takes besides its network: Python, torch and the photographs in work.
WORKER_MEMORY = 1_500_000_000

#: A version in Ray's message on those that differ.
_VERSION = re.compile(r"\b(Ray|Python): ([\w.]+)")

#: The beginning of HTTP/2 (RFC 9113, 3.4) with empty settings, and the type of the frame that answers.
_HTTP2, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", 4


@dataclass(frozen=True)
class Shared:
    """Bytes in Ray's object store, sent to each node once; picklable, so that jobs may hold it."""

    reference: Any

    def get(self) -> bytes:
        """Return the bytes, on a worker."""
        import ray

        found: bytes = ray.get(self.reference)
        return found


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to."""

    nodes: Sequence[Node]
    alone: bool  #: started for this run on this machine, with its packages and its files

    def check(self, store: Store, *, originals: Sequence[str] = (), writes: bool = False) -> None:
        """Ask each node for its versions, and whether it can read the store; see `check_nodes`.

        Args:
            originals: files outside the store that workers read.
            writes: workers write to the store, too.
        """
        if not self.alone:
            check_nodes(self.nodes, store, originals, writes=writes)

    def resources(self, device: str, network: int = 0) -> Resources:
        """Return what each worker takes, and how many of them the cluster holds.

        Args:
            device: "cpu", "cuda", or "auto" for the GPUs where there are any.
            network: bytes of a network that each worker has in memory.

        Raises:
            InputError: there is no such device, or no node has a free processor at all.
        """
        if device not in ("auto", "cpu", "cuda"):
            raise InputError(
                f"{device} is a GPU of one machine: with the engine ray give cuda, cpu or auto"
            )
        gpus = sum(node.gpus for node in self.nodes)
        if device == "cuda" and not gpus:
            raise InputError(
                f"no node of the Ray cluster has a GPU ({_listed(self.nodes)}): give --device cpu, or start "
                "Ray on a machine with a GPU"
            )
        if gpus and device != "cpu":
            threads = min(node.cpus // node.gpus for node in self.nodes if node.gpus)
            return Resources(cpus=max(1, threads), gpus=1, workers=gpus, device="cuda")
        able = [node for node in self.nodes if node.cpus]
        if not able:
            raise InputError(
                f"no node of the Ray cluster gives a processor ({_listed(self.nodes)}): start a worker with "
                "'ray start --address ... --num-cpus N'"
            )
        need = WORKER_MEMORY + 2 * network
        cpus = max(-(-node.cpus // max(1, min(node.cpus, node.memory // need))) for node in able)
        cpus = min(cpus, *(node.cpus for node in able))
        return Resources(cpus=cpus, workers=sum(node.cpus // cpus for node in able))

    def share(self, data: bytes) -> Shared:
        """Put bytes where workers get them from, once."""
        import ray

        return Shared(ray.put(data))

    def map(
        self, job: Job[Q, R], items: Sequence[Q], resources: Resources
    ) -> Generator[tuple[int, R | Refused], None, None]:
        """Yield number and result of each item as it is computed; see `map_on_actors`."""
        return map_on_actors(job, items, resources)

    def in_order(
        self, job: Job[Q, R], items: Sequence[Q], resources: Resources
    ) -> Generator[R | Refused, None, None]:
        """Yield the result of each item, as soon as those of all items before it are there."""
        waiting: dict[int, R | Refused] = {}
        following = 0
        with closing(self.map(job, items, resources)) as done:
            for number, found in done:
                waiting[number] = found
                while following in waiting:
                    yield waiting.pop(following)
                    following += 1


@contextmanager
def connect(address: str | None = None) -> Iterator[Cluster]:
    """Connect to a Ray cluster while the block runs; one that this process is connected to is used.

    Args:
        address: "local" starts Ray on this machine and stops it afterwards, "auto" is the one that runs
            on this machine, HOST:PORT a cluster that this machine is a node of. None: as the variable
            RAY_ADDRESS says, or "local".

    Raises:
        ModuleNotFoundError: Ray is not installed.
        WorkspaceError: nothing answers there, or another version.
    """
    address = address or os.environ.get(VARIABLE) or LOCAL
    _hush()
    import pyarrow  # noqa: F401 - Ray Data needs it, and says so later and less clearly
    import ray
    import ray.data

    _hush_console(logging.getLogger("ray.data").handlers)
    with _sigterm_kept(), redirect_stdout(_Noise()):  # Ray prints on stdout, where results belong
        if ray.is_initialized():
            yield Cluster(_nodes(), alone=False)
            return
        folder = None
        try:
            if address == LOCAL:
                folder = _short_folder()
                _start(folder)
            else:
                _join(address)
            with _head_watched(ray.get_runtime_context().gcs_address):
                yield Cluster(_nodes(), alone=address == LOCAL)
        finally:
            ray.shutdown()
            if folder is not None:
                _remove(folder)


@contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Undo afterwards what Ray does with SIGTERM: while it is in use, its own handler stops its processes."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(folder: str) -> None:
    """Start Ray on this machine."""
    import ray

    try:
        with _no_stderr():
            ray.init(
                address=LOCAL,
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE,
                _temp_dir=folder,
                **_QUIET,
            )
    except Exception as error:
        raise WorkspaceError(
            f"Ray can't be started on this machine ({_first_line(error)}): use --engine local"
        ) from error


def _join(address: str) -> None:
    """Become the driver of a cluster that runs."""
    import ray

    if "://" in address:
        raise InputError(
            f"--ray-address {address}: Ray Client is not supported: run ddiseg on a node of the cluster, and "
            "give auto, or HOST:PORT as 'ray start --head' prints it"
        )
    if address != "auto":
        _check_answers(address)
    try:
        with _no_stderr():
            ray.init(address=address, **_QUIET)
    except Exception as error:
        raise WorkspaceError(_refusal(address, error)) from error


@contextmanager
def _head_watched(address: str) -> Iterator[None]:
    """Say when the head of the cluster is gone: Ray ends this process a minute later, without a word."""
    host, _, port = address.rpartition(":")
    ended = threading.Event()

    def watch() -> None:
        missed = 0
        while not ended.wait(WATCH):
            try:
                socket.create_connection((host.strip("[]"), int(port)), ANSWER).close()
                missed = 0
            except OSError:
                missed += 1
            if missed == MISSED:
                logger.error(
                    f"the head of the Ray cluster at {address} does not answer any more, and Ray will end "
                    "this command: what was finished is kept; start Ray, then run the same command again"
                )

    watching = threading.Thread(target=watch, name="ray head", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


_QUIET: dict[str, Any] = {"logging_level": logging.CRITICAL, "log_to_driver": False}


def _check_answers(address: str) -> None:
    """Raise WorkspaceError unless a gRPC server answers: `ray.init` would wait for ever."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputError(
            f"--ray-address {address}: give local, auto, or HOST:PORT as 'ray start --head' prints it"
        )
    try:
        with socket.create_connection((host.strip("[]"), int(port)), ANSWER) as server:
            server.settimeout(ANSWER)
            server.sendall(_HTTP2)
            answer = server.recv(9)
    except OSError as error:
        why = error.strerror or str(error)
        raise WorkspaceError(_unreachable(address, why)) from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise WorkspaceError(_unreachable(address, "what answers there is no Ray"))


def _unreachable(address: str, why: str) -> str:
    return (
        f"no Ray cluster answers at {address} ({why}): start one with 'ray start --head', give its address "
        "with --ray-address, or use --engine local"
    )


def _refusal(address: str, error: Exception) -> str:
    text = str(error)
    if "Version mismatch" in text:
        versions = [f"{name} {found}" for name, found in _VERSION.findall(text)]
        theirs, ours = ", ".join(versions[:2]), ", ".join(versions[2:4])
        return f"the Ray cluster at {address} has {theirs}, and this machine {ours}: install the same on all"
    if isinstance(error, ConnectionError) and address == "auto":
        return (
            "no Ray cluster runs on this machine: start one with 'ray start --head', or leave "
            "--ray-address out to start one for this run"
        )
    if "node with IP" in text or "node_ip_address" in text:
        return (
            f"this machine is no node of the Ray cluster at {address}: run 'ray start --address {address} "
            "--num-cpus 0' here first, or ddiseg on one of its nodes"
        )
    return _unreachable(address, _first_line(error))


def _nodes() -> list[Node]:
    """Return the nodes that are alive and may work."""
    import ray

    alive = [Node.of(each) for each in ray.nodes() if each["Alive"]]
    return sorted(alive, key=lambda node: node.name)


def _listed(nodes: Sequence[Node]) -> str:
    return ", ".join(f"{node.name}: {node.cpus} CPUs, {node.gpus} GPUs" for node in nodes)


def _hush() -> None:
    """Turn off what Ray says and sends, unless it was asked for; before it is imported."""
    for name, value in (("RAY_BACKEND_LOG_LEVEL", "fatal"), ("RAY_USAGE_STATS_ENABLED", "0")):
        os.environ.setdefault(name, value)
    logging.getLogger("ray").setLevel(logging.CRITICAL)


def _hush_console(handlers: Iterable[logging.Handler]) -> None:
    """Silence what Ray writes on the console; its files, and other programs' handlers, stay as they are."""
    for handler in handlers:
        of_ray = type(handler).__module__.partition(".")[0] == "ray"
        if of_ray and isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL + 1)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what is written to the descriptor of stderr: Ray's C++ says there that it was told to be quiet."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Noise(io.TextIOBase):
    """A stdout whose lines are logged for --debug."""

    def write(self, text: str) -> int:
        if text.strip():
            logger.debug(text.rstrip())
        return len(text)


def _short_folder() -> str:
    """Return a new folder; a socket in it must have a path of at most 107 bytes."""
    within = tempfile.gettempdir()
    return tempfile.mkdtemp(prefix="ddiseg-ray-", dir=within if len(within) <= 20 else "/tmp")


def _remove(folder: str) -> None:
    """Remove the folder of a Ray that was stopped; its last processes may write for a moment more."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not os.path.exists(folder):
            return
        time.sleep(0.1)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")[:200] or type(error).__name__
