"""An agent that runs only signed tasks, from the key to the task's end."""

import pytest

from tests.e2e.kit import eventually


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


@pytest.fixture(scope="module")
def key(shared):
    made = shared.cli("key", "create", str(shared.folder / "release.key"))
    assert made.returncode == 0, made.stderr
    (shared.folder / "trusted").write_text(made.stdout)
    return str(shared.folder / "release.key")


def ended(shared, server, *arguments):
    """Submit a task and return what is said of it once it has ended."""
    made = shared.cli("task", "create", *arguments, server=server)
    assert made.returncode == 0, made.stderr

    def shown():
        return shared.cli("task", "get", made.stdout.strip(), server=server).stdout

    eventually(lambda: "SUCCESS" in shown() or "FAILED" in shown())
    return shown()


def test_what_is_signed_is_run_and_nothing_else(shared, server, key):
    shared.start_agent(server, "--trusted-task-keys", str(shared.folder / "trusted"))
    assert "SUCCESS" in ended(shared, server, "--sign-key", key, "--env", "A=1", "--", "true")
    assert "runs only signed tasks" in ended(shared, server, "--", "true")
    shared.cli("key", "create", str(shared.folder / "other.key"))
    other = str(shared.folder / "other.key")
    assert "does not trust the key" in ended(shared, server, "--sign-key", other, "--", "true")
