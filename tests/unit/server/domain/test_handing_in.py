"""Artifacts: whose they are, when they are seen, and when they go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.artifact import Wanted, blob_name, latest, path_problem
from server.domain.errors import Invalid, LimitReached, NotFound, WrongState
from server.domain.granting_uploads import CreateUploadGrant
from server.domain.handing_in import (
    ABANDONED,
    BeginArtifact,
    DeleteArtifact,
    ForgetArtifact,
    NoteUpload,
    StoreArtifact,
)
from server.domain.moment import DAY
from server.domain.task import TaskStatus
from server.domain.token import TokenKind
from server.domain.tokens import RevokeToken
from tests.fakes.core import NAMESPACE

DIGEST = "a" * 64


def wanted(path="out.bin", *, size=10, sha256=DIGEST, **more):
    return Wanted("bin", path, size, sha256, **more)


def begin(core, ref, path="out.bin", *, id_="id-1", quota=0, agent_id="a", **more):
    return core.do(
        BeginArtifact(
            *(NAMESPACE, id_, wanted(path, **more), 16, quota),
            task_id=ref.task_id,
            lease_id=ref.lease_id,
            agent_id=agent_id,
        )
    )


def store(core, artifact, agent_id="a"):
    return core.do(StoreArtifact(NAMESPACE, artifact.public_id, agent_id))


def test_a_file_is_listed_once_it_is_stored(core):
    task_id, ref = core.running()
    made = begin(core, ref, expire_days=3)
    assert (made.task_id, made.attempt, made.listed) == (task_id, 1, False)
    assert made.due_at == core.clock.now() + ABANDONED
    assert begin(core, ref, id_="id-2").public_id == "id-1"  # the same again goes on
    core.do(NoteUpload("id-1", "upload-1"))
    stored = store(core, made)
    assert stored.listed
    assert stored.due_at == stored.expire_at == made.created_at + 3 * DAY
    assert store(core, made).stored_at == stored.stored_at  # an answer may be lost
    assert begin(core, ref, id_="id-3").stored_at


def test_a_task_has_time_for_its_files_beyond_its_own(core):
    task_id, ref = core.running(timeout=5)
    own = core.task(task_id).deadline
    begin(core, ref)
    assert core.task(task_id).deadline == core.clock.now() + 3_600_000 > own
    core.pass_time(1_800_000)
    assert core.status(task_id) is TaskStatus.RUNNING


def test_a_file_that_was_changed_takes_the_place_of_the_one_before(core):
    _, ref = core.running()
    first = begin(core, ref)
    store(core, first)
    second = begin(core, ref, id_="id-2", sha256="b" * 64)
    assert second.public_id == "id-2"
    assert core.tables.artifacts[first.key].deleted
    assert latest(core.tables.artifacts.values()) == []
    store(core, second)
    assert [each.public_id for each in latest(core.tables.artifacts.values())] == ["id-2"]


@pytest.mark.parametrize("agent_id", ["a", "b", ""])
def test_only_who_holds_the_lease_hands_in(core, agent_id):
    core.join("b")
    task_id, ref = core.running()
    stale = type(ref)(task_id, f"{task_id}.9")
    with pytest.raises(WrongState, match="not held by this lease"):
        begin(core, stale, agent_id=agent_id)
    if agent_id == "b":
        with pytest.raises(WrongState):
            begin(core, ref, agent_id=agent_id)
    else:
        begin(core, ref, agent_id=agent_id)


def test_what_is_stored_too_late_is_never_seen(core):
    _, ref = core.running(retry_count=1)
    made = begin(core, ref)
    core.report(ref, TaskStatus.FAILED)
    with pytest.raises(WrongState):
        store(core, made)
    assert not core.tables.artifacts[made.key].listed


def test_a_file_that_comes_before_any_other_word_takes_a_lost_lease_up_again(core):
    task_id, ref = core.running()
    core.lose()
    assert core.status(task_id) is TaskStatus.QUEUED
    made = begin(core, ref)
    assert (core.status(task_id), core.task(task_id).infra_retries) == (TaskStatus.RUNNING, 0)
    core.lose()
    assert store(core, made).listed
    core.report(ref, TaskStatus.SUCCESS)
    assert (core.status(task_id), core.task(task_id).attempt) == (TaskStatus.SUCCESS, 1)


def test_a_file_of_a_lease_that_somebody_else_has_taken_over_is_refused(core):
    task_id, ref = core.running()
    core.join("b")
    core.lose()
    (again,) = core.claim("b")
    with pytest.raises(WrongState, match="not held by this lease"):
        begin(core, ref)
    assert core.task(task_id).lease_id == again.lease_id


def test_of_two_attempts_the_last_one_counts(core):
    task_id, ref = core.running(retry_count=1)
    store(core, begin(core, ref))
    core.report(ref, TaskStatus.FAILED)
    core.pass_time(core.policy.retry_backoff_limit)
    (again,) = core.claim()
    second = begin(core, type(ref)(task_id, again.lease_id), id_="id-2")
    assert [a.public_id for a in latest(core.tables.artifacts.values())] == ["id-1"]
    store(core, second)
    assert [a.public_id for a in latest(core.tables.artifacts.values())] == ["id-2"]


def test_a_namespace_keeps_so_much_and_no_more(core):
    _, ref = core.running()
    begin(core, ref, quota=15)
    with pytest.raises(LimitReached, match="keeps 10 bytes of artifacts, and may keep 15"):
        begin(core, ref, "other.bin", id_="id-2", quota=15)
    core.do(DeleteArtifact(NAMESPACE, "id-1"))
    begin(core, ref, "other.bin", id_="id-2", quota=15)


def test_what_was_deleted_is_nobodys_until_its_bytes_are_gone(core):
    _, ref = core.running()
    made = begin(core, ref)
    store(core, made)
    with pytest.raises(WrongState, match="is stored"):
        core.do(DeleteArtifact(NAMESPACE, "id-1", only_unstored=True))
    with pytest.raises(NotFound):
        core.do(DeleteArtifact("other", "id-1"))
    core.do(DeleteArtifact(NAMESPACE, "id-1"))
    for command in (DeleteArtifact(NAMESPACE, "id-1"), StoreArtifact(NAMESPACE, "id-1", "a")):
        with pytest.raises(NotFound):
            core.do(command)
    assert core.tables.artifacts[made.key].due_at == core.clock.now()
    core.do(ForgetArtifact("id-1"))
    assert core.tables.artifacts == {}


# ---- grants


def grant(core, **chosen):
    fields = {"caller": "camera-1", "created_by": "olga", **chosen}
    return core.do(CreateUploadGrant(NAMESPACE, "grant-1", "d" * 64, **fields))


def hand_in(core, id_="id-1", **more):
    return core.do(BeginArtifact(NAMESPACE, id_, wanted(**more), 16, 0, grant_id="grant-1"))


def test_a_grant_confines_its_files_and_its_bytes(core):
    made = grant(core, prefix="media/raw", max_bytes=15, expire_days=2)
    assert made.expires_at == core.clock.now() + 900_000
    artifact = hand_in(core, path="a/ b.mp4")
    assert artifact.blob.startswith(f"{NAMESPACE}/media/raw/camera-1/20")
    assert artifact.blob.endswith("/id-1/_b.mp4")
    assert artifact.expire_at == core.clock.now() + 2 * DAY
    assert core.do(StoreArtifact(NAMESPACE, "id-1")).handed_in_by == "camera-1"
    with pytest.raises(LimitReached, match="for 15 bytes, and 10 are used"):
        hand_in(core, "id-2", path="c")


@pytest.mark.parametrize("how", ["time", "revoked"])
def test_a_grant_ends(core, how):
    grant(core)
    if how == "time":
        core.pass_time(900_000)
    else:
        core.do(RevokeToken(NAMESPACE, "grant-1", frozenset({TokenKind.UPLOAD})))
    with pytest.raises(WrongState, match="has ended"):
        hand_in(core)


@pytest.mark.parametrize(
    ("field", "value"),
    [("caller", "a/b"), ("caller", ".."), ("caller", ""), ("prefix", "../x"), ("lifetime", -1),
     ("lifetime", 90_000), ("max_bytes", -1), ("expire_days", 10**6)],
)  # fmt: skip
def test_a_malformed_grant_is_refused(core, field, value):
    with pytest.raises(Invalid, match=field):
        grant(core, **{field: value})


# ---- names


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "../a", "a//b", "./a", "a\n", "a" * 1025, "\ud800"]
)
def test_what_is_no_path_of_a_file(path):
    with pytest.raises(Invalid, match="path"):
        wanted(path).check(0)


@given(st.text(max_size=30), st.text(max_size=60))
def test_a_blob_lies_in_its_own_place(place, path):
    if path_problem(path) or path_problem(place):
        return
    name = blob_name("team", place, "id-1", path)
    assert name.isascii()
    parts = name.split("/")
    assert parts[0] == "team"
    assert parts[-2] == "id-1"
    assert not {"", ".", ".."} & set(parts)
