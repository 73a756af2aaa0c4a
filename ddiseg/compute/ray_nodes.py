"""The nodes of a Ray cluster: what each has, and whether it can do the work.

A task on each node reports versions and reads one file. It writes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from annotation_protocol.files import atomic_write
from ddiseg.errors import WorkspaceError
from ddiseg.workspace.store import Kind, Store

#: Seconds in which a node must report; its first worker process starts in them.
REPORT = 120.0

#: Packages whose versions decide bits: of masks (torch), of photographs (Pillow). Ray compares its own and Python's.
PACKAGES = ("ddiseg", "torch", "pillow")


@dataclass(frozen=True)
class Node:
    """A node of a cluster that is alive."""

    id: str
    name: str  #: of its host, and its address
    cpus: int
    gpus: int
    memory: int  #: bytes that Ray may give to workers

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Node:
        """Return the node of a row of `ray.nodes()`."""
        has = row["Resources"]
        return cls(
            row["NodeID"],
            f"{row['NodeManagerHostname']} ({row['NodeManagerAddress']})",
            int(has.get("CPU", 0)),
            int(has.get("GPU", 0)),
            int(has.get("memory", 0)),
        )


def check_nodes(
    nodes: Sequence[Node], store: Store, originals: Sequence[str] = (), *, writes: bool = False
) -> None:
    """Compare the versions on each node with those here, and let it read the store.

    A folder is shared where a node reads what was just written there: a copy of it would hold older
    files only.

    Raises:
        WorkspaceError: a node can't do the work: which, why, and what to do.
    """
    able = [node for node in nodes if node.cpus or node.gpus]
    with _marker(store) as (place, content):
        reports = _reports(able, {"store": place, "url": store.url, "originals": list(originals)})
    here = {name: _version(name) for name in PACKAGES}
    for node, report in zip(able, reports, strict=True):
        if problem := _problem(report, here, content, store, writes):
            raise WorkspaceError(f"node {node.name} of the Ray cluster {problem}")


def _problem(
    report: Mapping[str, Any] | str,
    here: Mapping[str, str],
    content: str,
    store: Store,
    writes: bool,
) -> str:
    """Return what is wrong with a node; empty if nothing is."""
    if isinstance(report, str):
        return f"can't be used: {report}"
    for name, wanted in here.items():
        found = report["versions"][name]
        if found is None:
            return f"does not have {name}: pip install 'ddiseg[ray]=={here['ddiseg']}' there"
        if _release(found) != _release(wanted):
            return f"has {name} {found}, and this machine {wanted}: masks might differ; install the same on all"
    if report["problem"] or report["store"] != content:
        why = report["problem"] or "it finds another folder there"
        return (
            f"can't read the store {store.url} ({why}): put the store where all nodes have it, on a shared disk "
            "or in an object store ('ddiseg init --store s3://BUCKET/PREFIX'), or use --engine local"
        )
    if writes and not report["writable"]:
        return (
            f"can't write to the store {store.url}: let the user of Ray's workers there write to it, or use "
            "--engine local"
        )
    if report["missing"]:
        return (
            f"can't read {report['missing']}: put the photographs where all nodes have them under the same "
            "path, or use --engine local"
        )
    return ""


@contextmanager
def _marker(store: Store) -> Iterator[tuple[str | None, str]]:
    """Write a file that nodes must find, into a store that is a folder; yield its place and content."""
    content = secrets.token_hex(16)
    if not store.local:
        yield None, ""
        return
    root = Path(store.path(Kind.MODEL, content)).parents[2]
    place = root / f".cluster-check-{content[:8]}.part"
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(place, content.encode())
        yield str(place), content
    except OSError as error:
        raise WorkspaceError(f"{place.parent} can't be written: {error.strerror}") from error
    finally:
        place.unlink(missing_ok=True)


def _reports(nodes: Sequence[Node], asked: Mapping[str, Any]) -> list[dict[str, Any] | str]:
    """Return each node's report, or why there is none."""
    import ray
    from ray.exceptions import GetTimeoutError, RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=1)(_report())
    running = [
        task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False)
        ).remote(PACKAGES, asked)
        for node in nodes
    ]
    ray.wait(running, num_returns=len(running), timeout=REPORT)
    reports: list[dict[str, Any] | str] = []
    for each in running:
        try:
            reports.append(ray.get(each, timeout=0.1))
        except GetTimeoutError:
            reports.append(f"it did not answer within {REPORT:.0f} s; see 'ray status'")
        except RayError as error:
            lines = [line for line in str(error).strip().splitlines() if line.strip()]
            reports.append(lines[-1].strip()[:200] if lines else type(error).__name__)
    return reports


def _report() -> Callable[[Sequence[str], Mapping[str, Any]], dict[str, Any]]:
    """Return the function that runs on a node: a nested one is sent whole, where ddiseg is missing too."""

    def report(packages: Sequence[str], asked: Mapping[str, Any]) -> dict[str, Any]:
        import os
        from importlib import metadata

        versions: dict[str, str | None] = {}
        for name in packages:
            try:
                versions[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                versions[name] = None
        found, problem = "", ""
        try:
            if asked["store"] is not None:
                with open(asked["store"]) as file:
                    found = file.read()
            elif versions["ddiseg"] is not None:
                from ddiseg.workspace.store import Kind, Store

                Store(asked["url"]).exists(Kind.MODEL, "0" * 64)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        missing = [path for path in asked["originals"] if not os.access(path, os.R_OK)]
        return {
            "versions": versions,
            "store": found,
            "writable": not asked["store"] or os.access(os.path.dirname(asked["store"]), os.W_OK),
            "problem": problem,
            "missing": missing[0] if missing else None,
        }

    return report


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "from a folder"


def _release(text: str) -> str:
    """Return a version without its build: CPU and CUDA builds of torch are one release."""
    return text.partition("+")[0]
