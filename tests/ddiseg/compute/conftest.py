"""Fixtures of a workspace that can learn."""

from tests.ddiseg.spots import learn, one_thread, spots, tiny_weights  # noqa: F401
