"""Every command is audited or has a reason not to be, and no entry tells a secret."""

import importlib
import inspect
import pkgutil
from dataclasses import replace

import pytest

import server.domain
from server.domain.audit import Origin
from server.domain.auditing import RULES, NoteChange
from server.domain.configuring import ConfigureAgent
from server.domain.errors import MusterError
from server.domain.submitting import CreateTask, DeleteTask, NewTask, UpdateTask
from server.domain.submitting_many import CreateTasks
from server.domain.task import TaskSpec
from server.domain.token import TokenKind
from server.domain.tokens import CreateToken, RevokeToken
from server.engine.writer import decide
from tests.fakes.core import Core

BY_AGENTS = {
    "AppendLog", "Attach", "BeginArtifact", "ChangeAgent", "FindLog", "HandBack", "LookUpLogs",
    "NoteUpload", "RecordLog", "Refetch", "Report", "StoreArtifact",
}  # fmt: skip
"""What agents tell of the tasks they hold: thousands a second, and in events."""

BY_ITSELF = {
    "Claim", "ClaimArchive", "ClaimDeliveries", "ClaimRows", "DropLogs", "EndChores",
    "FinishDelivery", "ForgetArtifact", "LoseSession", "NoteUse", "PruneDeliveries", "PruneRest",
    "PruneTasks",
    "ReceiveDelivery", "ReconcileSchedules", "RenewClaim", "RenewSessions", "ReplaceRows",
    "RewrapSecret", "RewrapTask", "RunTimers",
    "SealLogs", "SettleGroups", "SettleSome",
}  # fmt: skip

WHO = Origin("default", "ci", "user", "token-1", "ipv4:127.0.0.1:1", "request-1", "/x.Y/Z")


def every_command():
    for module in pkgutil.iter_modules(server.domain.__path__):
        found = importlib.import_module(f"server.domain.{module.name}")
        for name, each in inspect.getmembers(found, inspect.isclass):
            own = each.__module__ == found.__name__ and not getattr(each, "_is_protocol", False)
            if own and hasattr(each, "decide") and hasattr(each, "task_ids"):
                yield name


def test_every_command_is_audited_or_has_a_reason_not_to_be():
    audited = {command.__name__ for command in RULES}
    assert set(every_command()) == audited | BY_AGENTS | BY_ITSELF
    assert not audited & (BY_AGENTS | BY_ITSELF)


@pytest.fixture
def core():
    return Core()


def told(core, command, origin=WHO):
    """Decide a command of a caller, and return the answer and the entries that it has left."""
    before = len(core.database.tables.audit)
    committed = core.database.transact_now(
        lambda source: decide([command], core.clock, core.policy, source, origins=[origin])
    )
    return committed.answers[0], core.database.tables.audit[before:]


def new(name="one", **fields):
    return NewTask(name, TaskSpec(("true",), **fields))


def test_an_entry_says_who_what_and_from_where(core):
    task_id, (entry,) = told(core, CreateTask("default", "t1", new(), "ci"))
    assert (entry.action, entry.subject, entry.after) == ("task.create", task_id, {"name": "one"})
    assert (entry.caller, entry.kind, entry.credential) == ("ci", "user", "token-1")
    assert (entry.peer, entry.request_id, entry.method) == (
        "ipv4:127.0.0.1:1",
        "request-1",
        "/x.Y/Z",
    )
    assert (entry.namespace, entry.at) == ("default", core.clock.now())


def test_many_tasks_are_one_entry(core):
    ids = tuple(f"t{number}" for number in range(25))
    _, (entry,) = told(core, CreateTasks("default", ids, tuple(new() for _ in ids), "ci"))
    assert entry.after == {"tasks": 25, "first": list(ids[:10])}


def test_only_what_has_changed_is_told(core):
    told(core, CreateTask("default", "t1", new(env={"A": "hidden-value"}), "ci"))
    _, (entry,) = told(core, UpdateTask("default", "t1", name="two", env={"B": "hidden-value"}))
    assert entry.before == {"name": "one", "env": ["A"]}
    assert entry.after == {"name": "two", "env": ["B"]}


def test_what_is_deleted_is_told_as_it_was(core):
    told(core, CreateTask("default", "t1", new(), "ci"))
    _, (entry,) = told(core, DeleteTask("default", "t1"))
    assert (entry.before["name"], entry.after) == ("one", {})


def test_a_refusal_and_a_repeat_leave_nothing(core):
    answer, entries = told(core, DeleteTask("default", "absent"))
    assert isinstance(answer, MusterError)
    assert entries == []
    core.join("a1")
    change = ConfigureAgent("default", "a1", {"slots": 3})
    assert len(told(core, change)[1]) == 1
    assert told(core, change)[1] == []


def test_what_happens_by_itself_leaves_nothing(core):
    _, entries = told(core, CreateTask("default", "t1", new(), "ci"), origin=None)
    assert entries == []


def test_a_token_is_told_without_its_digest(core):
    command = CreateToken("default", "k1", TokenKind.USER, "d" * 64, "eve", "ci")
    _, (made,) = told(core, command)
    _, (revoked,) = told(core, RevokeToken("default", "k1", frozenset(TokenKind)))
    assert "d" * 64 not in str(made) + str(revoked)
    assert revoked.before == {"revoked_at": None}
    assert revoked.after == {"revoked_at": core.clock.now()}


def test_a_change_made_elsewhere_is_told_by_whoever_made_it(core):
    _, (entry,) = told(core, NoteChange("secret.put", "db"))
    assert (entry.action, entry.subject) == ("secret.put", "db")


def test_a_name_longer_than_its_column_is_cut(core):
    _, (entry,) = told(core, NoteChange("secret.put", "x" * 500))
    assert len(entry.subject) == 128
    assert replace(entry, subject="") != entry
