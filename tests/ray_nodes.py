"""A Ray cluster of two nodes on this machine, one processor each, for a test session."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ddiseg.compute.ray_cluster import _sigterm_kept
from tests.object_store import S3Server, set_environment

#: Bytes of each node's object store.
OBJECT_STORE = 100_000_000


#: Hides what begins with a name, on a node that starts with it on its path.
SITECUSTOMIZE = """
import builtins, os
_open = builtins.open
def _hiding(file, *args, **kwargs):
    hidden = os.path.join(os.path.dirname(__file__), "hidden")
    if os.path.exists(hidden) and "cluster-check" in str(file):
        raise FileNotFoundError(2, "No such file or directory", file)
    return _open(file, *args, **kwargs)
builtins.open = _hiding
"""


@dataclass(frozen=True)
class RayNodes:
    """The running cluster."""

    address: str
    cluster: Any

    @contextmanager
    def other(self, folder: Path) -> Iterator[Path]:
        """Add a node with a folder of its own first on its path.

        A file "hidden" in it takes the store away from the node; TORCH-1.0.dist-info gives it that torch.
        """
        (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
        with _sigterm_kept():  # Ray replaces the handler for each node
            node = self.cluster.add_node(
                num_cpus=1, object_store_memory=OBJECT_STORE, env_vars={"PYTHONPATH": str(folder)}
            )
        try:
            yield folder
        finally:
            self.cluster.remove_node(node, allow_graceful=False)


@pytest.fixture(scope="session")
def ray_nodes(s3_server: S3Server) -> Iterator[RayNodes]:
    """Start the cluster and connect this process.

    The nodes know the object store of the tests, as nodes elsewhere know theirs: by their environment.
    """
    pytest.importorskip("ray", reason="no Ray is installed: pip install 'ddiseg[ray]'")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(
        "RAY_AUTH_MODE", "disabled"
    )  # else it writes a token into the home folder
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: a socket's path has 107 letters
    os.environ["RAY_TMPDIR"] = folder
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as environment:
        set_environment(environment, s3_server.environment())
        warnings.simplefilter("ignore")
        import ray
        import ray.data
        from ray.cluster_utils import Cluster

        head = {
            "num_cpus": 1,
            "include_dashboard": False,
            "object_store_memory": OBJECT_STORE,
        }
        with _sigterm_kept():  # Ray's handler would stay in tests of other modules
            cluster = Cluster(initialize_head=True, head_node_args=head)
            cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        try:
            with _sigterm_kept():
                ray.init(address=cluster.address, logging_level="CRITICAL", log_to_driver=False)
            environment.undo()
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            yield RayNodes(cluster.address, cluster)
        finally:
            ray.shutdown()
            cluster.shutdown()
            del os.environ["RAY_TMPDIR"]
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_address(ray_nodes: RayNodes) -> str:
    """The address of the cluster."""
    return ray_nodes.address
