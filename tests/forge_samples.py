"""Deliveries in the forms that the forges document, with names and values of our own."""

import base64
import hmac
import json

COMMIT = "5f1d9c0e" * 5
OLD = "0a1b2c3d" * 5
SECRET = "a-secret-for-tests-only"  # noqa: S105

_COMMITS = [
    {"id": OLD, "message": "prepare", "added": ["a.txt"], "modified": [], "removed": []},
    {
        "id": COMMIT,
        "message": "Widen the gate",
        "author": {"name": "Ada"},
        "added": [],
        "modified": ["src/gate.py"],
        "removed": ["old.txt"],
    },
]


def github_push(ref="refs/heads/main", **more):
    """Return GitHub's push."""
    return {
        "ref": ref,
        "before": OLD,
        "after": COMMIT,
        "deleted": False,
        "compare": "https://github.example/example/widgets/compare/a...b",
        "commits": _COMMITS,
        "head_commit": _COMMITS[-1],
        "pusher": {"name": "ada"},
        "sender": {"login": "ada"},
        "repository": {"full_name": "example/widgets"},
        **more,
    }


def github_pull_request(action="opened", **more):
    """Return GitHub's pull_request."""
    return {
        "action": action,
        "number": 7,
        "pull_request": {
            "title": "Widen the gate",
            "body": "It was narrow.",
            "html_url": "https://github.example/example/widgets/pull/7",
            "head": {"ref": "wide", "sha": COMMIT},
            "base": {"ref": "main", "sha": OLD},
            "user": {"login": "ada"},
        },
        "sender": {"login": "ada"},
        **more,
    }


def gitlab_push(ref="refs/heads/main", kind="push", **more):
    """Return GitLab's push."""
    return {
        "object_kind": kind,
        "ref": ref,
        "before": OLD,
        "after": COMMIT,
        "checkout_sha": COMMIT,
        "user_username": "ada",
        "project": {"web_url": "https://gitlab.example/example/widgets"},
        "commits": _COMMITS,
        "total_commits_count": 2,
        **more,
    }


def gitlab_merge_request(action="open", **attributes):
    """Return GitLab's merge request."""
    return {
        "object_kind": "merge_request",
        "user": {"username": "ada"},
        "object_attributes": {
            "iid": 7,
            "title": "Widen the gate",
            "description": "It was narrow.",
            "source_branch": "wide",
            "target_branch": "main",
            "action": action,
            "last_commit": {"id": COMMIT, "author": {"name": "Ada"}},
            "url": "https://gitlab.example/example/widgets/-/merge_requests/7",
            **attributes,
        },
    }


def bitbucket_push(*changes):
    """Return Bitbucket's repo:push."""
    target = {
        "hash": COMMIT,
        "message": "Widen the gate",
        "author": {"raw": "Ada <ada@example.com>"},
    }
    usual = {"new": {"type": "branch", "name": "main", "target": target}, "closed": False}
    return {"push": {"changes": list(changes) or [usual]}, "actor": {"nickname": "ada"}}


def bitbucket_pull_request():
    """Return Bitbucket's pull request."""
    return {
        "actor": {"nickname": "ada"},
        "pullrequest": {
            "id": 7,
            "title": "Widen the gate",
            "description": "It was narrow.",
            "source": {"branch": {"name": "wide"}, "commit": {"hash": COMMIT}},
            "destination": {"branch": {"name": "main"}},
            "links": {"html": {"href": "https://bitbucket.example/example/widgets/7"}},
            "author": {"nickname": "ada"},
        },
    }


def signed(kind, event, payload, *, delivery="", secret=SECRET, now=0, header="x-signature"):
    """Return a call's headers and body, signed as its forge signs."""
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    digest = hmac.digest(secret.encode(), body, "sha256").hex()
    headers = {"content-type": "application/json"}
    if kind == "github":
        headers |= {"x-github-event": event, "x-hub-signature-256": f"sha256={digest}"}
        headers |= {"x-github-delivery": delivery} if delivery else {}
    elif kind == "gitea":
        headers |= {
            "x-gitea-event": event,
            "x-gitea-signature": digest,
            "x-github-event": event,
            "x-hub-signature-256": f"sha256={digest}",
            "x-gitea-delivery": delivery,
        }
    elif kind == "gitlab":
        headers |= {"x-gitlab-event": event, "x-gitlab-token": secret}
        headers |= {"x-gitlab-event-uuid": delivery} if delivery else {}
    elif kind == "bitbucket":
        headers |= {"x-event-key": event, "x-hub-signature": f"sha256={digest}"}
        headers |= {"x-request-uuid": delivery} if delivery else {}
    elif kind == "hmac":
        headers |= {header: digest}
        headers |= {"x-delivery-id": delivery} if delivery else {}
    else:
        told = f"{delivery}.{now}.".encode() + body
        encoded = base64.b64encode(hmac.digest(secret.encode(), told, "sha256")).decode()
        headers |= {
            "webhook-id": delivery,
            "webhook-timestamp": str(now),
            "webhook-signature": f"v1,{encoded}",
        }
    return headers, body


SAMPLES = (
    ("github", "push", github_push()),
    ("github", "push", github_push("refs/tags/v1.0")),
    ("github", "pull_request", github_pull_request()),
    ("gitlab", "Push Hook", gitlab_push()),
    ("gitlab", "Tag Push Hook", gitlab_push("refs/tags/v1.0", "tag_push")),
    ("gitlab", "Merge Request Hook", gitlab_merge_request()),
    ("gitea", "push", github_push(total_commits=2)),
    ("gitea", "pull_request", github_pull_request("synchronized")),
    ("bitbucket", "repo:push", bitbucket_push()),
    ("bitbucket", "pullrequest:created", bitbucket_pull_request()),
    ("standard", "", {"type": "deploy", "branch": "main", "data": {"n": 1}}),
    ("hmac", "", {"branch": "main", "ref": 5}),
)
