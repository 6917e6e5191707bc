"""Before a task starts and after it has ended: what is on its way then, and who dies meanwhile."""

import pytest

from generated.task.v1 import task_pb2
from tests.counting_proxy import counting_proxy
from tests.e2e.kit import eventually
from tests.e2e.test_examples import Shop, standing

RELEASED = task_pb2.ATTEMPT_STATUS_RELEASED


class Held(Shop):
    """A server whose files go through a door that can keep them waiting."""

    def __init__(self, kit, door, folder):
        super().__init__(kit, "--http-url", door.endpoint)
        door.aim(int(self.server.http.rpartition(":")[2]))
        self.door, self.ran = door, folder / "ran"
        file = folder / "muster.yaml"
        file.write_text(f"""
name: files
stages:
  - name: first
    jobs:
      - name: leaves
        commands: ["echo leaves >> {self.ran}", echo words > file]
        artifacts: file
  - name: second
    jobs:
      - name: takes
        take: [leaves]
        commands: ["echo takes >> {self.ran}", cat file]
""")
        self.muster("pipeline", "apply", "-f", str(file))

    def held_at(self, method):
        """Start a run, and wait until a file of it is held; return the run's id."""
        self.door.hold(method)
        run_id = self.trigger("files")
        eventually(lambda: self.asked(method), 30)
        return run_id

    def asked(self, method):
        return sum(each.startswith(method) for each in self.door.asked)

    def task(self, run_id, name):
        (task_id,) = (job.task_id for job in self.run(run_id).jobs if job.name == name)
        return self.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task

    def succeeds(self, run_id):
        """Wait for a run's end: both jobs ran once, and nothing is charged to them."""
        run = self.ended(run_id)
        assert standing(run) == {"leaves": "SUCCESS", "takes": "SUCCESS"}
        assert self.ran.read_text().splitlines() == ["leaves", "takes"]
        assert self.log(run_id, "takes") == ["words"]
        for name in standing(run):
            task = self.task(run_id, name)
            assert (task.infra_retries, task.retried_times) == (0, 0)
        self.leaves_nothing()

    def leaves_nothing(self):
        """Wait until nothing of a task is left on the host."""
        folder = self.agent.data_dir
        staging, spool = folder / "staging", folder / "spool"
        eventually(lambda: not staging.exists() or not list(staging.iterdir()))
        eventually(lambda: not [each for each in spool.iterdir() if each.name[0] != "."])


@pytest.fixture
def shop(kit, tmp_path):
    with counting_proxy() as door:
        yield Held(kit, door, tmp_path)


def test_a_task_cancelled_while_it_is_prepared_starts_nothing(shop):
    run_id = shop.held_at("GET")
    task_id = shop.task(run_id, "takes").task_id
    shop.tasks.CancelTask(task_pb2.CancelTaskRequest(task_id=task_id, reason="not wanted"))
    eventually(lambda: shop.task(run_id, "takes").status == task_pb2.TASK_STATUS_CANCELLED, 5)
    assert len(shop.task(run_id, "takes").attempts) == 1
    assert not shop.agent.supervisor.children()
    shop.leaves_nothing()
    shop.door.let_on()
    shop.ended(run_id)
    assert shop.ran.read_text().splitlines() == ["leaves"]
    shop.ran.unlink()
    shop.succeeds(shop.trigger("files"))


def test_an_agent_that_drains_hands_back_what_it_prepares(shop):
    run_id = shop.held_at("GET")
    assert shop.agent.terminate() == 0
    # One that the server gave it before it heard of the drain goes back the same way.
    assert {each.status for each in shop.task(run_id, "takes").attempts} == {RELEASED}
    shop.door.let_on()
    shop.agent.start()
    shop.succeeds(run_id)


def test_a_session_killed_while_it_prepares_prepares_again_and_the_task_runs_once(shop):
    run_id = shop.held_at("GET")
    shop.agent.kill9()
    shop.agent.start()
    eventually(lambda: shop.asked("GET") > 1, 30)
    shop.door.let_on()
    shop.succeeds(run_id)


def test_a_session_killed_while_it_collects_collects_again_and_the_task_runs_once(shop):
    run_id = shop.held_at("PUT")
    assert shop.task(run_id, "leaves").status == task_pb2.TASK_STATUS_RUNNING
    shop.agent.kill9()
    shop.agent.start()
    eventually(lambda: shop.asked("PUT") > 1, 30)
    shop.door.let_on()
    shop.succeeds(run_id)
    assert len(shop.task(run_id, "leaves").attempts) == 1
