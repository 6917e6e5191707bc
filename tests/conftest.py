"""What every test has: a patient Hypothesis, and a kit of real processes for those that ask."""

import os
from collections.abc import Iterator

import hypothesis
import pytest

from tests.e2e.kit import Kit

# How long an example takes says more about the machine's other work than about ours.
# CI tries the same examples every time; what chance finds belongs to whoever looks for it.
hypothesis.settings.register_profile(
    "muster", deadline=None, derandomize=bool(os.environ.get("CI"))
)
hypothesis.settings.load_profile("muster")

KIT = pytest.StashKey[Kit]()


@pytest.fixture
def kit(request: pytest.FixtureRequest) -> Iterator[Kit]:
    """Real servers, agents and commands; everything ends with the test."""
    kit = request.node.stash[KIT] = Kit()
    try:
        yield kit
    finally:
        kit.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show what the processes of a failed test wrote to stderr."""
    report = yield
    kit = item.stash.get(KIT, None)
    if kit and report.failed and call.when == "call":
        report.sections += [(f"stderr of {name}", text[-20_000:]) for name, text in kit.stderr()]
    return report
