"""Attempts that are prepared or collected: whatever is said of them meanwhile, they end once."""

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from agent import board as boards
from agent.board import Board
from agent.collecting import CannotCollect
from agent.kept_workspaces import KeptWorkspaces
from agent.outbox import Outbox
from agent.plugin_cache import PluginRefused, PluginUnavailable
from agent.preparing import STAGING, CannotPrepare, Preparer
from agent.room import Room
from agent.spool import CONCLUDED, Spool
from generated.agent.v1 import agent_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from tests.unit.agent.kit import until

CANCEL = agent_pb2.VERDICT_ACTION_CANCEL
SUPERSEDED = agent_pb2.VERDICT_ACTION_SUPERSEDED


@dataclass
class Plugins:
    """Gives folders, or what a plugin's fetch ends with."""

    faults: dict = field(default_factory=dict)
    held: dict = field(default_factory=dict)

    async def take(self, lease, infos):
        for info in infos:
            if fault := self.faults.get(info.reference):
                raise fault
        self.held[lease] = [info.reference for info in infos]
        return {info.reference: STAGING for info in infos}

    def hold(self, lease, folders):
        self.held[lease] = list(folders)

    def release(self, lease):
        self.held.pop(lease, None)


@dataclass
class Files:
    """Brings a file, at once or when the gate is open."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None
    begun: int = 0

    async def fetch(self, inputs, folder):
        (folder / inputs[0].path).write_text("half of it")
        self.begun += 1
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault


@dataclass
class Store:
    """Keeps artifacts when the gate is open, or refuses."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None
    collected: list = field(default_factory=list)

    async def collect(self, identity, workspace, wanted):
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        if not workspace.is_dir():
            raise CannotCollect("the workspace cannot be read", elsewhere=False)
        self.collected += [(identity.lease, each["name"]) for each in wanted]
        return ["a remark"]


class Desk:
    """A board with a supervisor that does nothing by itself, and what the server hears."""

    def __init__(self, folder, group):
        self.folder, self.group = folder, group
        self.spool, self.outbox = Spool(folder), Outbox()
        self.spool.create()
        self.plugins, self.files, self.stores = Plugins(), Files(), [Store()]
        self.rooms = []
        self.keeper = KeptWorkspaces(folder, timedelta(days=1), 0)
        self.preparer = Preparer(folder, self.plugins, {}, self.files)
        self.told = []
        self.knows_plans = True
        self.board = self.session()
        self.board.set_lease_seconds(30)
        self.board.renewed(time.monotonic())

    def session(self, slots=1):
        self.rooms.append(Room(self.spool, self.group))
        return Board(
            self.spool,
            slots,
            self.outbox,
            self.told.append,
            self.rooms[-1],
            self.group,
            preparer=self.preparer,
            collector=self.store,
            keeper=self.keeper,
            plans=lambda: self.knows_plans,
        )

    def close(self):
        """Lets go on whatever waits."""
        for gate in (self.files.gate, *(store.gate for store in self.stores)):
            gate.set()
        for room in self.rooms:
            room.close()

    @property
    def store(self):
        return self.stores[-1]

    @property
    def orders(self):
        return [message["lease"] for message in self.told if message["kind"] == "start"]

    @property
    def staged(self):
        folder = self.folder / STAGING
        return list(folder.iterdir()) if folder.is_dir() else []

    @property
    def held(self):
        return [lease.lease_id for lease in self.board.held().leases]

    def assign(self, lease, **fields):
        fields = {"commands": ["true"], "timeout": 60, "kill_grace": 1, **fields}
        task = agent_pb2.Task(job_id=f"task {lease}", lease_id=lease, attempt=1, **fields)
        self.board.assign(1, [task])

    def assign_files(self, lease, **fields):
        self.assign(lease, inputs=[agent_pb2.ArtifactInput(path="file")], **fields)

    async def preparing(self, lease, **fields):
        """Assigns a task whose files do not come, and waits until they are asked for."""
        begun = self.files.begun
        self.assign_files(lease, **fields)
        await until(lambda: self.files.begun > begun)

    def says(self, lease, end=None, kind="ended"):
        """Tells what a supervisor tells of an attempt."""
        state = {"lease": lease, "started_at": 1, "running": end is None, "end": end}
        self.board.supervisor_says({"kind": kind, **state})

    def ended(self, lease, cause="exited", code=0, **more):
        times = {"started_at": 1, "ended_at": 2}
        words = {"message": "", "failure": "task", "silent": True}
        self.says(lease, {"cause": cause, "exit_code": code, **words, **times, **more})

    def judge(self, lease, action):
        verdict = agent_pb2.LeaseVerdict(
            task_id=f"task {lease}", lease_id=lease, action=action, reason="as told"
        )
        self.board.judge([verdict])

    async def hears(self):
        """Returns what the server hears next."""
        async with asyncio.timeout(5):
            return await self.outbox.next_frame()

    async def hears_end(self, lease):
        """Returns the one end that the server hears of a lease, and acknowledges it."""
        (status,) = (await self.hears()).statuses
        assert status.lease_id == lease
        ack = {"task_id": status.task_id, "lease_id": lease, "status": status.status}
        self.board.acknowledge(stream_pb2.Acks(statuses=[stream_pb2.StatusAck(**ack)]))
        return status

    async def hears_nothing(self):
        """Waits until all that was begun has gone on, and looks whether anything is to be told."""
        for _ in range(20):
            await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                raise AssertionError(await self.outbox.next_frame())


@pytest.fixture
async def desk(tmp_path):
    """A desk whose board has begun."""
    async with asyncio.TaskGroup() as group:
        desk = Desk(tmp_path, group)
        yield desk
        desk.close()


# ---- while a task is prepared


async def test_a_task_cancelled_while_it_is_prepared_ends_and_is_never_ordered(desk):
    await desk.preparing("one")
    desk.judge("one", CANCEL)
    desk.judge("one", CANCEL)
    desk.files.gate.set()
    end = await desk.hears_end("one")
    assert (end.status, end.error_message) == (task_pb2.TASK_STATUS_CANCELLED, "as told")
    await desk.hears_nothing()
    assert (desk.told, desk.plugins.held, desk.staged, desk.held) == ([], {}, [], [])


async def test_a_drain_hands_back_what_is_prepared(desk):
    await desk.preparing("one")
    desk.assign("two")
    desk.board.drain()
    frame = await desk.hears()
    assert [(each.lease_id, each.reason) for each in frame.handed_back] == [
        ("one", ""),
        ("two", ""),
    ]
    assert not frame.statuses
    desk.files.gate.set()
    await desk.hears_nothing()
    assert (desk.told, desk.plugins.held, desk.staged, desk.held) == ([], {}, [], [])
    assert desk.board.quiet.is_set()


async def test_a_drain_releases_what_is_prepared_and_was_told_to_run(desk, monkeypatch):
    monkeypatch.setattr(boards, "_QUICK_SECONDS", 0.0)
    await desk.preparing("one")
    (start,) = (await desk.hears()).statuses
    assert start.status == task_pb2.TASK_STATUS_RUNNING
    desk.board.drain()
    frame = await desk.hears()
    (end,) = frame.statuses
    assert (end.status, end.failure) == (
        task_pb2.TASK_STATUS_FAILED,
        agent_pb2.FAILURE_CLASS_RELEASED,
    )
    assert end.error_message == "was given back while it was prepared"
    assert not frame.handed_back
    await desk.hears_nothing()
    assert (desk.told, desk.staged) == ([], [])


async def test_a_superseded_lease_ends_nothing_and_leaves_its_slot_to_the_next(desk):
    await desk.preparing("one")
    desk.assign("two")
    assert desk.orders == []
    desk.judge("one", SUPERSEDED)
    assert desk.orders == ["two"]
    desk.judge("one", SUPERSEDED)
    desk.judge("one", CANCEL)
    desk.files.gate.set()
    await desk.hears_nothing()
    assert (desk.orders, desk.plugins.held, desk.staged, desk.held) == (["two"], {}, [], ["two"])


async def test_a_superseded_session_starts_nothing_that_waits(desk):
    desk.assign("one")
    desk.assign("two")
    desk.board.stop_all("superseded", "a newer instance has this agent's id")
    desk.ended("one", cause="superseded")
    assert desk.orders == ["one"]
    assert desk.board.quiet.is_set()


async def test_a_task_is_not_prepared_for_longer_than_it_may_take(desk):
    desk.assign_files("one", timeout=1)
    end = await desk.hears_end("one")
    assert (end.status, end.error_message) == (
        task_pb2.TASK_STATUS_TIMEOUT,
        "was not prepared within 1 s",
    )
    assert end.timestamp - end.started_at >= 1000
    assert (desk.told, desk.plugins.held, desk.staged) == ([], {}, [])


async def test_what_must_not_run_twice_is_not_started_once_its_lease_may_be_over(desk):
    await desk.preparing("one", stop_with_lease=True)
    desk.board.renewed(time.monotonic())
    desk.board.set_lease_seconds(6)  # which has a margin of 5 s, and a grace of 1 s
    desk.files.gate.set()
    frame = await desk.hears()
    assert [(each.lease_id, each.reason) for each in frame.handed_back] == [("one", "")]
    assert (desk.orders, desk.plugins.held, desk.staged, desk.held) == ([], {}, [], [])


async def test_what_was_prepared_goes_when_the_host_cannot_start_its_task(desk):
    desk.files.gate.set()
    desk.assign_files("one")
    await until(lambda: desk.orders)
    assert desk.staged
    desk.ended("one", cause="no_room", failure="infrastructure", message="the disk is full")
    (back,) = (await desk.hears()).handed_back
    assert (back.lease_id, back.reason) == ("one", "the disk is full")
    assert (desk.plugins.held, desk.staged) == ({}, [])


async def test_a_supervisor_from_before_runs_what_it_can_and_the_rest_goes_back(desk):
    desk.knows_plans = False
    desk.assign_files("one")
    (back,) = (await desk.hears()).handed_back
    assert (back.lease_id, back.reason) == (
        "one",
        "the running supervisor is of an earlier version; stop the agent with SIGTERM",
    )
    desk.assign("two")
    assert (desk.orders, desk.files.begun) == (["two"], 0)


def info(name):
    return agent_pb2.PluginInfo(plugin_id=name, version="1.0.0", reference=f"{name}@1")


async def test_a_plugin_that_may_not_run_fails_its_task_alone(desk):
    desk.board.resize(2)
    desk.plugins.faults["bad@1"] = PluginRefused("plugin bad@1: other bytes")
    desk.assign("one", plugins=[info("good"), info("bad")])
    desk.assign("two", plugins=[info("good")])
    end = await desk.hears_end("one")
    assert (end.status, end.failure, end.error_message) == (
        task_pb2.TASK_STATUS_FAILED,
        agent_pb2.FAILURE_CLASS_TASK,
        "plugin bad@1: other bytes",
    )
    assert (desk.orders, desk.plugins.held) == (["two"], {"two": ["good@1"]})
    assert desk.board.takes_work


async def test_a_plugin_that_cannot_be_had_now_hands_its_task_back_alone(desk):
    desk.board.resize(2)
    desk.plugins.faults["bad@1"] = PluginUnavailable("plugin bad@1: nobody answers")
    desk.assign("one", plugins=[info("bad")])
    desk.assign("two", plugins=[info("good")])
    frame = await desk.hears()
    assert [(each.lease_id, each.reason) for each in frame.handed_back] == [
        ("one", "plugin bad@1: nobody answers")
    ]
    assert not frame.statuses
    assert (desk.orders, desk.held) == (["two"], ["two"])
    assert desk.board.takes_work


@pytest.mark.parametrize("elsewhere", [True, False])
async def test_files_that_do_not_come_leave_nothing_behind(desk, elsewhere):
    desk.files.fault = CannotPrepare("file: the store refuses", elsewhere=elsewhere)
    desk.files.gate.set()
    desk.assign_files("one")
    frame = await desk.hears()
    back = [(each.lease_id, each.reason) for each in frame.handed_back]
    ends = [(each.status, each.error_message) for each in frame.statuses]
    if elsewhere:
        assert (back, ends) == ([("one", "file: the store refuses")], [])
    else:
        assert (back, ends) == ([], [(task_pb2.TASK_STATUS_FAILED, "file: the store refuses")])
    assert (desk.orders, desk.plugins.held, desk.staged) == ([], {}, [])


async def test_a_supervisor_that_comes_later_is_told_of_what_was_prepared_meanwhile(desk):
    desk.files.gate.set()
    desk.assign_files("one")
    await until(lambda: desk.orders)
    desk.board.supervisor_found([])
    first, second = (message for message in desk.told if message["kind"] == "start")
    assert first == second
    assert first["staged"] == str(desk.folder / STAGING / "one")


@pytest.mark.parametrize(
    ("action", "statuses"), [(CANCEL, [task_pb2.TASK_STATUS_CANCELLED]), (SUPERSEDED, [])]
)
async def test_what_is_stopped_before_its_supervisor_has_begun_it_is_not_begun(
    desk, action, statuses
):
    desk.assign("one")
    desk.judge("one", action)  # the supervisor dies, and has heard of neither
    desk.board.supervisor_found([])
    assert desk.orders == ["one"]
    if statuses:
        assert [(await desk.hears_end("one")).status] == statuses
    await desk.hears_nothing()
    assert (desk.orders, desk.held) == (["one"], [])


# ---- while artifacts are collected


ARTIFACT = agent_pb2.Artifact(name="report", path="report.txt", on_failure=True)


def leave(desk, lease="one", **fields):
    """Runs a task to its end, which its artifacts keep from being told."""
    desk.assign(lease, artifacts=[ARTIFACT], **fields)
    desk.spool.folder(lease).workspace.mkdir(parents=True)
    desk.ended(lease)


async def test_an_end_is_told_once_its_artifacts_are_kept(desk):
    leave(desk)
    await desk.hears_nothing()
    assert (desk.held, desk.board.vacancies) == (["one"], 0)
    desk.store.gate.set()
    assert (await desk.hears_end("one")).status == task_pb2.TASK_STATUS_SUCCESS
    assert desk.store.collected == [("one", "report")]


@pytest.mark.parametrize(
    ("elsewhere", "failure"),
    [(False, agent_pb2.FAILURE_CLASS_TASK), (True, agent_pb2.FAILURE_CLASS_INFRASTRUCTURE)],
)
async def test_a_store_that_refuses_fails_the_attempt_and_says_whose_fault_it_is(
    desk, elsewhere, failure
):
    desk.store.fault = CannotCollect("artifact report: too large", elsewhere=elsewhere)
    desk.store.gate.set()
    leave(desk)
    end = await desk.hears_end("one")
    assert (end.status, end.failure) == (task_pb2.TASK_STATUS_FAILED, failure)
    assert end.error_message == "artifact report: too large"
    assert desk.board.quiet.is_set()


async def test_a_cancel_ends_a_collection_that_has_only_just_begun(desk):
    leave(desk)
    desk.judge("one", CANCEL)  # its first step has not been done yet
    desk.store.gate.set()
    end = await desk.hears_end("one")
    assert (end.status, end.error_message) == (task_pb2.TASK_STATUS_CANCELLED, "as told")
    await desk.hears_nothing()
    assert desk.store.collected == []


async def test_a_superseded_lease_ends_a_collection_and_tells_nothing(desk):
    leave(desk)
    await asyncio.sleep(0)
    desk.judge("one", SUPERSEDED)
    desk.judge("one", SUPERSEDED)
    desk.store.gate.set()
    await desk.hears_nothing()
    assert (desk.store.collected, desk.held) == ([], [])


async def test_a_drain_waits_for_a_collection_and_its_limit_releases_the_task(desk):
    leave(desk)
    desk.board.drain()
    await desk.hears_nothing()
    desk.board.stop_all("stopped", "the agent was stopped")
    end = await desk.hears_end("one")
    assert (end.status, end.failure, end.error_message) == (
        task_pb2.TASK_STATUS_FAILED,
        agent_pb2.FAILURE_CLASS_RELEASED,
        "the agent was stopped",
    )
    assert desk.board.empty.is_set()


def next_session(desk, lease="one", **words):
    """Lets another session find what the last one has left, when that was killed."""
    desk.outbox = Outbox()
    desk.board = desk.session()
    end = {"cause": "exited", "exit_code": 0, "message": "", "failure": "task", "silent": True}
    state = {"lease": lease, "task": f"task {lease}", "attempt": 1, "kill_grace": 1.0}
    artifact = {"name": "report", "path": "report.txt", "on_failure": True}
    desk.board.supervisor_found(
        [
            {
                **state,
                **{"stop_with_lease": False, "started_at": 1, "running": True},
                "artifacts": [{**artifact, "destination": "", "expire_days": 0}],
                "end": {**end, "started_at": 1, "ended_at": 2},
                **words,
            }
        ]
    )


async def test_the_next_session_collects_what_the_last_one_did_not(desk):
    leave(desk)
    await desk.hears_nothing()
    desk.stores.append(Store())
    next_session(desk)
    await desk.hears_nothing()
    desk.store.gate.set()
    assert (await desk.hears_end("one")).status == task_pb2.TASK_STATUS_SUCCESS
    assert desk.store.collected == [("one", "report")]


@pytest.mark.parametrize("kept", [True, False])
async def test_what_was_collected_is_not_collected_again(desk, kept):
    desk.store.gate.set()
    leave(desk, keep_workspace=kept)
    first = await desk.hears()
    assert first.statuses[0].status == task_pb2.TASK_STATUS_SUCCESS  # nobody acknowledges it
    next_session(desk, keep_workspace=kept)
    second = await desk.hears()
    assert (second.statuses, second.logs) == (first.statuses, first.logs)
    assert desk.store.collected == [("one", "report")]


async def test_why_artifacts_could_not_be_kept_is_told_by_the_next_session_too(desk):
    desk.store.fault = CannotCollect("artifact report: too large", elsewhere=False)
    desk.store.gate.set()
    leave(desk, keep_workspace=True)
    first = await desk.hears()
    desk.store.fault = None
    next_session(desk, keep_workspace=True)
    second = await desk.hears()
    assert second.statuses == first.statuses
    assert second.statuses[0].error_message == "artifact report: too large"
    assert desk.store.collected == []


@pytest.mark.parametrize("words", [{}, {"cause": 1}, {"message": "\ud800"}, {"failure": None}])
async def test_what_a_task_wrote_of_its_own_end_must_be_sound(desk, words):
    folder = desk.spool.folder("one")
    folder.workspace.mkdir(parents=True)
    sound = {"cause": "exited", "message": "", "failure": "task"}
    folder.write(CONCLUDED, {**sound, **words} if words else {})
    desk.store.gate.set()
    next_session(desk)
    assert (await desk.hears_end("one")).status == task_pb2.TASK_STATUS_SUCCESS
    assert desk.store.collected == [("one", "report")]
