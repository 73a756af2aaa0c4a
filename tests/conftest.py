"""Settings of all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator

import hypothesis
import pytest

from tests.object_store import object_store, s3_server  # noqa: F401
from tests.ray_nodes import ray_address, ray_nodes  # noqa: F401
from tests.scale import scale_folder, scale_workspace  # noqa: F401
from tests.wording import refusal, wording  # noqa: F401

# No test is one of a timing: a busy machine must not fail a property.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A shell that runs the tests in the background ignores Ctrl+C for them and for all that they start.
for _sign, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_sign) is signal.SIG_IGN:
        signal.signal(_sign, _handler)


#: Markers by folder, and the order in which tests start: the longest files first.
_BY_FOLDER = {"live": pytest.mark.live, "peers": pytest.mark.peers}
_POSTGRES = {"_server", "own_server"}  # fixtures of tests/postgres.py
_FIRST = ("live", "training", "process", "property")


def pytest_configure(config: pytest.Config) -> None:
    """Where tests are only collected, none uses its snapshots: that is no failure."""
    config.option.warn_unused_snapshots |= config.option.collectonly


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by their folder and server, and let long ones start first.

    So parallel runs end together.
    """
    for item in items:
        folder = item.path.parent.name
        if folder in _BY_FOLDER:
            item.add_marker(_BY_FOLDER[folder])
        if _POSTGRES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.postgres)

    def place(item: pytest.Item) -> int:
        marks = [number for number, name in enumerate(_FIRST) if item.get_closest_marker(name)]
        return min(marks, default=len(_FIRST))

    order = {item.path: len(_FIRST) for item in items}
    for item in items:
        order[item.path] = min(order[item.path], place(item))
    items.sort(key=lambda item: order[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape names that are no UTF-8 in reports: workers of a parallel run cannot send them."""
    report = yield
    report.sections = [(head, _escaped(text)) for head, text in report.sections]
    if report.longrepr is not None and _escaped(report.longreprtext) != report.longreprtext:
        report.longrepr = _escaped(report.longreprtext)
    return report


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything should be there, a skipped test is a failed run: it would go unnoticed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("DDISEG_TESTS_SKIP_NOTHING") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("DDISEG_TESTS_SKIP_NOTHING is set, and tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
