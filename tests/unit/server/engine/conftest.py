"""Quiet logs: rendering a traceback takes longer than the test that provokes it."""

import pytest
import structlog


@pytest.fixture(autouse=True)
def logs():
    """What was logged, as dictionaries."""
    with structlog.testing.capture_logs() as entries:
        yield entries
