#!/usr/bin/env python3
"""Shows at a forge how a commit does: GitHub, GitLab, Gitea, Forgejo and Bitbucket."""

import os
import re
import sys
import time
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpx2

from plugins.parameters import Parameters, fail

SECONDS = 20.0
TRIES = 4
STATES = {
    "github": {
        "pending": "pending", "running": "pending", "success": "success", "failed": "failure",
        "cancelled": "error",
    },
    "gitlab": {
        "pending": "pending", "running": "running", "success": "success", "failed": "failed",
        "cancelled": "canceled",
    },
    "bitbucket": {
        "pending": "INPROGRESS", "running": "INPROGRESS", "success": "SUCCESSFUL",
        "failed": "FAILED", "cancelled": "STOPPED",
    },
}  # fmt: skip
"""What each forge calls our states; Gitea and Forgejo take GitHub's words."""


@dataclass(frozen=True)
class Status:
    """What is told."""

    state: str
    context: str
    description: str
    url: str


def main() -> None:
    """Tell the forge that the parameters name."""
    given = Parameters()
    forge = given.text("forge")
    host, path = _repository(given.text("repository") or os.environ.get("MUSTER_REPO_URL", ""))
    commit = (given.text("commit") or os.environ.get("MUSTER_COMMIT", "")).lower()
    if not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit):
        fail(f"commit: {commit!r} should be a whole commit id")
    status = Status(
        given.text("state"),
        given.text("context", "muster"),
        given.text("description")[:140],
        given.text("url"),
    )
    url, headers, told = request_of(
        forge, given.text("api"), host, path, commit, status, given.secret("token")
    )
    _post(url, headers, told)
    sys.stdout.write(f"{path}@{commit[:12]}: {status.context} {status.state}\n")


def request_of(
    forge: str, api: str, host: str, path: str, commit: str, status: Status, token: str
) -> tuple[str, dict[str, str], dict[str, str]]:
    """Return the URL, headers and JSON of a forge's call for a commit's status."""
    words = STATES.get(forge, STATES["github"])
    told = {"state": words[status.state], "description": status.description}
    bearer = {"authorization": f"Bearer {token}"}
    if forge == "github":
        base = api or (
            "https://api.github.com" if host == "github.com" else f"https://{host}/api/v3"
        )
        url = f"{base}/repos/{path}/statuses/{commit}"
        headers = {**bearer, "accept": "application/vnd.github+json"}
        return url, headers, _filled({**told, "context": status.context, "target_url": status.url})
    if forge == "gitlab":
        base = api or f"https://{host}/api/v4"
        url = f"{base}/projects/{quote(path, safe='')}/statuses/{commit}"
        headers = {"private-token": token}
        return url, headers, _filled({**told, "name": status.context, "target_url": status.url})
    if forge == "bitbucket":
        base = api or "https://api.bitbucket.org/2.0"
        url = f"{base}/repositories/{path}/commit/{commit}/statuses/build"
        key = {"key": status.context[:40], "name": status.context}
        # The forge wants a URL in any case.
        return url, bearer, _filled({**told, **key, "url": status.url or f"https://{host}/{path}"})
    base = api or f"https://{host}/api/v1"
    url = f"{base}/repos/{path}/statuses/{commit}"
    headers = {"authorization": f"token {token}"}
    return url, headers, _filled({**told, "context": status.context, "target_url": status.url})


def _filled(told: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in told.items() if value}


def _repository(url: str) -> tuple[str, str]:
    """Return the host of a repository and its path there, from a URL or the form user@host:path."""
    found = re.fullmatch(r"[^@/\s]+@([^:/\s]+):(.+)", url)
    parts = urlsplit(url)
    host, path = (found[1], found[2]) if found else (parts.hostname or "", parts.path)
    path = path.strip("/").removesuffix(".git")
    if not host or path.count("/") < 1:
        fail(f"repository: {url!r} should be the URL of a repository")
    return host, path


def _post(url: str, headers: dict[str, str], told: dict[str, str]) -> None:
    for attempt in range(TRIES):
        last = attempt + 1 == TRIES
        try:
            answer = httpx2.post(url, json=told, headers=headers, timeout=SECONDS)
        except httpx2.HTTPError as error:
            if last:
                fail(f"{urlsplit(url).hostname}: {error or type(error).__name__}")
        else:
            if answer.is_success:
                return
            again = answer.status_code in (408, 429) or answer.status_code >= 500
            if last or not again:
                fail(f"{urlsplit(url).hostname} answers {answer.status_code}: {answer.text[:300]}")
        time.sleep(2**attempt)


if __name__ == "__main__":
    main()
