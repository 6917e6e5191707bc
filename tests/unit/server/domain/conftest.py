"""The core on its own, for every test of a rule."""

import pytest

from tests.fakes.core import Core


@pytest.fixture
def core():
    """A core with one agent, `a`, of one slot."""
    core = Core()
    core.join("a")
    return core
