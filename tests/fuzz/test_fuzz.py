"""A short run of each importer's fuzz target; `python -m tests.fuzz` runs them for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS, check, make_workspace

pytestmark = pytest.mark.property


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("name", TARGETS)
def test_import__odd_files_end_in_words_and_lose_no_class(
    name: str, pristine: Path, tmp_path: Path
) -> None:
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        check(TARGETS[name], data.draw(TARGETS[name].files), pristine, tmp_path / "scratch")

    run()
