"""Settings of all tests."""

from __future__ import annotations

import os
import signal

import hypothesis
import pytest

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


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything should be there, a skipped test is a failed run: it would go unnoticed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("DDISEG_TESTS_SKIP_NOTHING") and reporter and reporter.stats.get("skipped"):
        reporter.write_line("DDISEG_TESTS_SKIP_NOTHING is set, and tests were skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
