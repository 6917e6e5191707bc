"""What stories share: one kit a module where the story allows it, and servers without errors."""

import json
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.api import Api
from tests.e2e.kit import Kit, Server
from tests.e2e.scripts import Gate, Mark


@pytest.fixture(scope="module")
def shared() -> Iterator[Kit]:
    """Real programs that live as long as the module's tests."""
    kit = Kit()
    try:
        yield kit
    finally:
        kit.close()


@pytest.fixture
def gate(tmp_path) -> Gate:
    """A place where a script waits."""
    return Gate(tmp_path)


@pytest.fixture
def mark() -> Mark:
    """A mark for a task's processes."""
    return Mark()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    """A caller of the `server` that the module's own fixture starts."""
    async with Api(server.grpc) as api:
        yield api


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test whose server has logged an error: nothing that stories do is one."""
    answer = yield
    complaints = [line for kit in _kits(item) for line in _complaints(kit)]
    assert not complaints, "The server logged errors:\n" + "\n".join(complaints)
    return answer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Show what shared processes of a failed test wrote to stderr."""
    report = yield
    shared = getattr(item, "funcargs", {}).get("shared")
    if shared and report.failed and call.when == "call":
        report.sections += [(f"stderr of {name}", text[-5_000:]) for name, text in shared.stderr()]
    return report


def _kits(item: pytest.Item) -> list[Kit]:
    return [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, Kit)]


def _complaints(kit: Kit) -> list[str]:
    return [
        line
        for name, text in kit.stderr()
        if name.startswith("server")
        for line in text.split("\n")
        if _is_complaint(line)
    ]


def _is_complaint(line: str) -> bool:
    """Return whether a line is an error, or no line of the log at all."""
    try:
        return json.loads(line)["level"] in ("error", "critical")
    except (ValueError, KeyError, TypeError):
        return bool(line.strip())
