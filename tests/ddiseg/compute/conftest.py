"""Fixtures of a workspace that can learn, and of a Ray cluster."""

from tests.ddiseg.spots import learn, one_thread, spots, tiny_weights  # noqa: F401
from tests.object_store import s3_server  # noqa: F401
from tests.ray_nodes import ray_address, ray_nodes  # noqa: F401
