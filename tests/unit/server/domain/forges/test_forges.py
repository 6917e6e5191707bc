"""What forges deliver is understood, and their signatures are checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.forges import Unread, events_of
from server.domain.forges.signing import TOLERANCE, check
from server.domain.hook import HookKind
from tests.forge_samples import (
    COMMIT,
    SAMPLES,
    SECRET,
    bitbucket_push,
    github_pull_request,
    github_push,
    gitlab_merge_request,
    gitlab_push,
    signed,
)

NOW = 1_700_000_000_000


def only(kind, name, payload):
    (event,) = events_of(HookKind(kind), name, payload)
    return event


@pytest.mark.parametrize(
    ("kind", "name", "payload", "paths"),
    [
        ("github", "push", github_push(), ("a.txt", "src/gate.py", "old.txt")),
        ("gitlab", "Push Hook", gitlab_push(), ("a.txt", "src/gate.py", "old.txt")),
        ("gitlab", "Push Hook", gitlab_push(total_commits_count=25), None),
        ("gitea", "push", github_push(), ("a.txt", "src/gate.py", "old.txt")),
        ("bitbucket", "repo:push", bitbucket_push(), None),
    ],
)
def test_a_push_is_the_same_whoever_tells_of_it(kind, name, payload, paths):
    event = only(kind, name, payload)
    assert (event.kind, event.branch, event.tag, event.commit) == ("push", "main", "", COMMIT)
    assert (event.message, event.sender, event.paths) == ("Widen the gate", "ada", paths)
    assert event.author.startswith("Ada")


@pytest.mark.parametrize(
    ("kind", "name", "payload"),
    [
        ("github", "push", github_push("refs/tags/v1.0")),
        ("gitlab", "Tag Push Hook", gitlab_push("refs/tags/v1.0", "tag_push")),
        (
            "bitbucket",
            "repo:push",
            bitbucket_push({"new": {"type": "tag", "name": "v1.0", "target": {"hash": COMMIT}}}),
        ),
    ],
)
def test_a_tag_is_told_apart_from_a_branch(kind, name, payload):
    event = only(kind, name, payload)
    assert (event.kind, event.branch, event.tag) == ("tag", "", "v1.0")


@pytest.mark.parametrize(
    ("kind", "name", "payload", "action"),
    [
        ("github", "pull_request", github_pull_request("opened"), "opened"),
        ("github", "pull_request", github_pull_request("reopened"), "opened"),
        ("github", "pull_request", github_pull_request("synchronize"), "updated"),
        ("github", "pull_request", github_pull_request("closed"), "closed"),
        ("gitea", "pull_request_sync", github_pull_request("synchronized"), "updated"),
        ("gitlab", "Merge Request Hook", gitlab_merge_request("open"), "opened"),
        ("gitlab", "Merge Request Hook", gitlab_merge_request("update", oldrev=COMMIT), "updated"),
        ("gitlab", "Merge Request Hook", gitlab_merge_request("merge"), "closed"),
    ],
)
def test_a_pull_request_is_the_same_whoever_tells_of_it(kind, name, payload, action):
    event = only(kind, name, payload)
    assert (event.kind, event.action, event.number) == ("pull_request", action, 7)
    assert (event.branch, event.base, event.commit) == ("wide", "main", COMMIT)
    assert event.message == "Widen the gate\n\nIt was narrow."
    assert event.paths is None


@pytest.mark.parametrize(
    ("kind", "name", "payload", "why", "malformed"),
    [
        ("github", "ping", {"zen": "x"}, "a ping", False),
        ("github", "star", {}, "star starts no runs", False),
        ("github", "push", github_push(deleted=True), "main was deleted", False),
        ("github", "push", github_push("refs/notes/x"), "neither a branch nor a tag", False),
        ("github", "push", {"ref": "refs/heads/x"}, "no text at after", True),
        ("github", "push", {"ref": 5}, "no text at ref", True),
        ("github", "push", [], "not a JSON object", True),
        ("github", "pull_request", github_pull_request("labeled"), "was labeled", False),
        ("github", "pull_request", {"action": "opened"}, "no text at pull_request.head.ref", True),
        ("gitlab", "Push Hook", gitlab_push(after="0" * 40), "main was deleted", False),
        ("gitlab", "Note Hook", {"object_kind": "note"}, "note starts no runs", False),
        ("gitlab", "x", gitlab_merge_request("update"), "but for its commits", False),
        ("bitbucket", "repo:push", bitbucket_push({"new": None}), "was deleted", False),
        ("bitbucket", "repo:push", {}, "no list at push.changes", True),
        ("bitbucket", "repo:fork", {}, "repo:fork starts no runs", False),
    ],
)
def test_what_starts_nothing_says_why(kind, name, payload, why, malformed):
    with pytest.raises(Unread, match=why) as unread:
        events_of(HookKind(kind), name, payload)
    assert unread.value.malformed is malformed


def test_a_push_of_several_branches_tells_of_each():
    changes = [
        {"new": {"type": "branch", "name": name, "target": {"hash": COMMIT}}} for name in "ab"
    ]
    events = events_of(HookKind.BITBUCKET, "repo:push", bitbucket_push(*changes))
    assert [event.branch for event in events] == ["a", "b"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.data(), st.sampled_from(SAMPLES))
def test_no_payload_trips_a_reader(data, sample):
    kind, name, payload = sample
    payload = dict(payload)
    for key in data.draw(st.lists(st.sampled_from(sorted(payload)), max_size=3)):
        payload[key] = data.draw(JSON)
    try:
        events = events_of(HookKind(kind), name, payload)
    except Unread:
        return
    assert all(event.kind for event in events)


# ---- signatures


def look(kind, headers, body, secrets=(SECRET,)):
    return check(HookKind(kind), "x-signature", headers, body, secrets, NOW)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample[0]} {sample[1]}")
def test_a_call_counts_when_one_of_two_secrets_has_signed_it(sample):
    headers, body = signed(*sample, delivery="d1", now=NOW // 1000)
    found = look(sample[0], headers, body, ("another", SECRET))
    assert found.forge_id == "d1"
    assert found.id_is_signed is (sample[0] == "standard")
    assert look(sample[0], headers, body, ("another",)) is None
    assert look(sample[0], headers, body, ()) is None
    if sample[0] != "gitlab":  # its token says nothing of the body
        assert look(sample[0], headers, body + b" ") is None
        assert look(sample[0], headers, body[:-1]) is None
    assert look(sample[0], {"content-type": "application/json"}, body) is None


def test_an_empty_secret_signs_nothing():
    headers = {"x-gitlab-token": "", "x-gitlab-event": "Push Hook"}
    assert look("gitlab", headers, b"{}", ("",)) is None


@pytest.mark.parametrize("seconds", [TOLERANCE // 1000 + 1, -(TOLERANCE // 1000 + 1)])
def test_a_signed_time_must_be_about_now(seconds):
    headers, body = signed("standard", "", {}, delivery="d", now=NOW // 1000 + seconds)
    assert look("standard", headers, body) is None


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "other"},
        {"webhook-timestamp": str(NOW // 1000 + 1)},
        {"webhook-timestamp": "x"},
        {"webhook-timestamp": "9" * 40},
        {"webhook-signature": "v2,abc"},
        {"webhook-signature": "v1,"},
        {"webhook-id": ""},
    ],
)
def test_whatever_is_signed_cannot_be_changed(change):
    headers, body = signed("standard", "", {}, delivery="d", now=NOW // 1000)
    assert look("standard", headers, body) is not None
    assert look("standard", headers | change, body) is None


def test_a_standard_secret_may_be_in_base64():
    import base64

    encoded = "whsec_" + base64.b64encode(SECRET.encode()).decode()
    headers, body = signed("standard", "", {}, delivery="d", now=NOW // 1000)
    assert look("standard", headers, body, (encoded,)) is not None
    assert look("standard", headers, body, ("whsec_***",)) is None


def test_gitlab_may_sign_as_standard_webhooks_do():
    headers, body = signed("standard", "", gitlab_push(), delivery="d", now=NOW // 1000)
    assert look("gitlab", headers, body) is None
    headers["x-gitlab-event"] = "Push Hook"
    assert look("gitlab", headers, body).id_is_signed
    assert look("gitlab", headers | {"x-gitlab-token": SECRET}, body + b" ") is None
