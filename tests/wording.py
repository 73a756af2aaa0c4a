"""What ddiseg says to people, pinned in snapshot files (syrupy): `__snapshots__/` beside the tests.

A test asserts what happened by exceptions, codes and fields, and pins the sentence:

    with refusal(InputError):             # raised, and its text is the pinned one
        import_masks(...)
    assert result.output == wording       # the pinned text

After a sentence was changed on purpose: `python -m pytest --snapshot-update`, and read the diff.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.amber import AmberSnapshotExtension

#: `with refusal(InputError) as error:` as `pytest.raises`, and the text is the pinned one.
Refusal = Callable[..., AbstractContextManager[pytest.ExceptionInfo[BaseException]]]

#: What differs from run to run: a port, a moment, a process, the file of a trained model, a package.
VARYING = {
    r"(?<=127\.0\.0\.1:)[2-6]\d{4}": "<port>",
    r"20\d\d-\d\d-\d\dT\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00:00)?": "<time>",
    r"(?<=process )\d+": "<pid>",
    r"(?<=port )[2-6]\d{4}": "<port>",
    r"ports \d+ to \d+": "ports <port> to <port>",
    r"\[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\]": "[<time>]",
    r"[0-9a-f]{2}/[0-9a-f]{64}": "<hash>",
    r"(?<=s3://bucket-)\d+": "<n>",
    r"[^\s'\"]*/pytest-of-\w+/pytest-\d+(/popen-gw\d+)?": "<session>",
    r"(?<=node )\S+ \([\d.]+\)(?= of the Ray)": "<node>",
    r"(?<=, and this machine )\d[\w.+]*": "<version>",
    r"(?<=torch )\d+\.\d+\.\d+[\w.+]*(?= finds)": "<version>",
}


@pytest.fixture
def wording(snapshot: SnapshotAssertion, request: pytest.FixtureRequest) -> SnapshotAssertion:
    """`assert text == wording`: the text is the pinned one, but for what differs from run to run."""
    folder = str(request.getfixturevalue("tmp_path")) if "tmp_path" in request.fixturenames else ""

    class Wording(AmberSnapshotExtension):
        def serialize(self, data: Any, **options: Any) -> str:
            text = str(super().serialize(data, **options))
            if folder:
                text = text.replace(folder, "<tmp>")
            for pattern, name in VARYING.items():
                text = re.sub(pattern, name, text)
            return text

        @classmethod
        def get_snapshot_name(cls, **place: Any) -> str:
            """Return one name on SQLite and PostgreSQL: both say the same, see `tests.postgres`."""
            name = super().get_snapshot_name(**place)
            return re.sub(r"\[postgresql\]|(?<=\[)postgresql-|-postgresql(?=\])", "", name)

    return snapshot.use_extension(Wording)


@pytest.fixture
def refusal(wording: SnapshotAssertion) -> Refusal:
    """`with refusal(InputError):` something raises that, and its text is the pinned one."""

    @contextmanager
    def raised(*kinds: type[BaseException]) -> Iterator[pytest.ExceptionInfo[BaseException]]:
        with pytest.raises(kinds) as error:
            yield error
        assert str(error.value) == wording

    return raised
