"""What plugins ask for, and what a host allows them."""

import pytest

from agent.allowing import read
from agent.preparing import CannotPrepare, Preparer
from generated.agent.v1 import agent_pb2
from plugins import bundled
from tests.unit.agent.test_preparing_board import Plugins

CHECKOUT = agent_pb2.Task(
    lease_id="lease", steps=[agent_pb2.Step(uses="git-checkout", settings="{}")]
)
CONTAINER = agent_pb2.Task(lease_id="lease", image="busybox", commands=["true"])


def preparer(tmp_path, rules):
    file = tmp_path / "allow.toml"
    file.write_text(rules)
    return Preparer(tmp_path, Plugins(), bundled.folders(), None, read(file))


@pytest.mark.parametrize(
    "rules", ["", 'permissions = ["network", "workspace", "secrets"]', 'permissions = ["*"]']
)
@pytest.mark.parametrize("task", [CHECKOUT, CONTAINER])
async def test_a_plugin_that_asks_for_what_is_allowed_runs(tmp_path, rules, task):
    assert (await preparer(tmp_path, rules).prepare(task)).plan


@pytest.mark.parametrize(
    ("rules", "missing"),
    [("permissions = []", "network"), ('permissions = ["network", "workspace"]', "secrets")],
)
@pytest.mark.parametrize(("task", "name"), [(CHECKOUT, "git-checkout"), (CONTAINER, "container")])
async def test_a_plugin_that_asks_for_more_never_starts(tmp_path, rules, missing, task, name):
    with pytest.raises(CannotPrepare) as refused:
        await preparer(tmp_path, rules).prepare(task)
    assert str(refused.value) == (
        f"this agent's host does not allow it: the plugin {name} asks for {missing!r},"
        " which is not in its permissions"
    )
    assert not refused.value.elsewhere
