"""Processes forked from one that has imported everything, for tests that kill them.

A program of the shell spends its first seconds on imports, where a kill proves nothing.
"""

from __future__ import annotations

import multiprocessing

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["ddiseg.loop.round", "ddiseg.workspace.verify", "label_studio_sdk.client", "pytest", __name__]
)
