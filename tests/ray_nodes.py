"""A Ray cluster of two nodes on this machine, one processor each, for a test session."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator

import pytest

from tests.object_store import S3Server, set_environment

#: Bytes of each node's object store.
OBJECT_STORE = 100_000_000


@pytest.fixture(scope="session")
def ray_address(s3_server: S3Server) -> Iterator[str]:
    """Start the cluster and connect this process; yields its address.

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
        cluster = Cluster(initialize_head=True, head_node_args=head)
        cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE)
        try:
            ray.init(address=cluster.address, logging_level="CRITICAL", log_to_driver=False)
            environment.undo()
            logging.getLogger("ray.data").setLevel(logging.CRITICAL)
            yield cluster.address
        finally:
            ray.shutdown()
            cluster.shutdown()
            del os.environ["RAY_TMPDIR"]
            shutil.rmtree(folder, ignore_errors=True)
