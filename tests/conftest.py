"""Settings of all tests."""

from __future__ import annotations

import hypothesis

# No test is one of a timing: a busy machine must not fail a property.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
