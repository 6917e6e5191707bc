"""What tasks are given of secrets, and what becomes of those that cannot be given them."""

import pytest

from server.auth import Caller
from server.domain.claiming import Assignment, HandBack
from server.domain.errors import SecretsRefused, StoreUnavailable
from server.domain.lease import LeaseRef
from server.domain.policy import Policy
from server.domain.reporting import Report
from server.domain.task import TaskSpec, TaskStatus
from server.rpc import handover
from server.rpc.handover import Handover


class Store:
    """A SecretStore that counts how often it is asked, and may fail."""

    def __init__(self):
        self.kept = {"db": "value-1", "api": "value-2"}
        self.asked = []
        self.failure = None

    async def values(self, namespace, names):
        self.asked.append((namespace, sorted(names)))
        if self.failure is not None:
            raise self.failure
        return {name: self.kept[name] for name in names if name in self.kept}


class Commands:
    """A writer that keeps what it is given."""

    def __init__(self):
        self.given = []

    async def submit(self, command):
        self.given.append(command)

    async def submit_each(self, commands):
        self.given += commands


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(handover, "PATIENCE", 0.01)
    return Store()


@pytest.fixture
def writer():
    return Commands()


@pytest.fixture
def hand_over(store, writer):
    hands = Handover(Policy(), writer=writer, secrets=store, encrypted=True)

    async def hand_over(*tasks):
        return await hands.messages(tasks, "a1", Caller())

    return hand_over


def task(task_id, namespace="default", **refs):
    spec = TaskSpec(("true",), secret_refs=refs).to_json()
    return Assignment(
        task_id, f"{task_id}.1", 1, "", "", "", 0, 1000, spec, False, namespace
    )  # fmt: skip


def given(messages):
    return {message.job_id: dict(message.secrets) for message in messages}


async def test_each_task_is_given_what_it_names(hand_over, writer):
    messages = await hand_over(task("t1", A="db"), task("t2"), task("t3", B="api", C="db"))
    assert given(messages) == {
        "t1": {"A": "value-1"}, "t2": {}, "t3": {"B": "value-2", "C": "value-1"},
    }  # fmt: skip
    assert not writer.given


async def test_the_store_is_asked_once_for_all_tasks_of_a_namespace(hand_over, store):
    await hand_over(
        task("t1", A="db"), task("t2", A="db", B="api"), task("t3"), task("t4", "other", A="db")
    )
    assert store.asked == [("default", ["api", "db"]), ("other", ["db"])]


async def test_the_store_is_not_asked_for_tasks_that_name_nothing(hand_over, store):
    await hand_over(task("t1"), task("t2"))
    assert not store.asked


async def test_a_task_whose_secret_is_gone_fails_alone(hand_over, writer):
    messages = await hand_over(task("t1", A="gone"), task("t2", A="db"))
    assert given(messages) == {"t2": {"A": "value-1"}}
    [report] = writer.given
    assert isinstance(report, Report)
    assert report.ref == LeaseRef("t1", "t1.1")
    assert report.status is TaskStatus.FAILED
    assert "'gone'" in report.error


async def test_tasks_whose_store_does_not_answer_are_queued_again_together(
    hand_over, store, writer
):
    store.failure = StoreUnavailable("away")
    messages = await hand_over(task("t1", A="db"), task("t2"), task("t3", A="db"))
    assert given(messages) == {"t2": {}}
    assert writer.given == [
        HandBack("a1", (LeaseRef("t1", "t1.1"), LeaseRef("t3", "t3.1")))
    ]  # one patience for both


async def test_a_server_without_a_key_fails_tasks_that_name_secrets(hand_over, store, writer):
    store.failure = SecretsRefused()  # queued again, they would come back here at once, for ever
    assert not await hand_over(task("t1", A="db"))
    [report] = writer.given
    assert isinstance(report, Report)
    assert "no key" in report.error
