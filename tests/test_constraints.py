"""The pins that `make demo` and `make test` install from can be had by anybody."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PINS = [
    line.split("==")
    for line in (Path(__file__).parents[1] / "constraints.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


def test_constraints__no_build_that_only_some_index_has() -> None:
    """A pinned 2.13.0+cpu is on no default index; 2.13.0 is met by every build of it."""
    assert [pin for pin in PINS if not re.fullmatch(r"[0-9][0-9a-z.]*", pin[-1])] == []


def test_constraints__every_declared_dependency_is_pinned() -> None:
    pinned = {canonicalize_name(name) for name, _ in PINS}
    declared = [Requirement(line) for line in requires("ddiseg") or []]
    assert {canonicalize_name(r.name) for r in declared} - {
        "ddiseg"
    } <= pinned  # [all] names ddiseg
