#!/usr/bin/env python3
"""Brings a commit of a git repository into the workspace: shallow, and with no credential on disk.

The credential goes to git through a variable that only git's own helper reads: it is in no file, in
no argument and in no URL, so neither the log nor the workspace has it.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from plugins.parameters import Parameters, fail, tell

TRIES = 3
COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
SCHEMES = ("https://", "http://", "ssh://", "git://", "file://", "/")
SCP_FORM = re.compile(r"[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^-].*")
PULL_REQUESTS = ("refs/pull/{}/head", "refs/merge-requests/{}/head", "refs/pull-requests/{}/from")
"""Of GitHub and Gitea, of GitLab, and of Bitbucket."""

TOKEN, USER = "MUSTER_GIT_TOKEN", "MUSTER_GIT_USER"
HELPER = f'!f() {{ test "$1" = get && echo "username=${USER}" && echo "password=${TOKEN}"; }}; f'


def main() -> None:
    """Check out what the parameters say."""
    given = Parameters()
    repository = given.text("repository")
    if not (repository.startswith(SCHEMES) or SCP_FORM.fullmatch(repository)):
        fail(f"repository: {repository!r} should be an https, ssh or file URL, or user@host:path")
    commit, branch = given.text("commit").lower(), given.text("branch")
    if commit and not re.fullmatch(r"[0-9a-f]{7,64}", commit):
        fail(f"commit: {commit!r} should be 7 to 64 hexadecimal digits")
    if branch.startswith("-") or any(ord(letter) < 33 for letter in branch):
        fail(f"branch: {branch!r} is no name of a branch")
    git = Git(_folder(given.text("into")), given)
    git.run("init", "--quiet", ".")
    git.run("remote", "add", "origin", repository)
    head = _fetch(git, given, commit, branch)
    git.run("-c", "advice.detachedHead=false", "checkout", "--quiet", "--force", head)
    if given.flag("submodules"):
        depth = int(given.number("depth", 1))
        shallow = ("--depth", str(depth)) if depth else ()
        git.run("submodule", "update", "--init", "--recursive", *shallow, tries=TRIES)
    found = git.read("rev-parse", "HEAD")
    title = git.read("log", "-1", "--format=%s", "HEAD")
    sys.stdout.write(f"{found[:12]} {title}\n")
    tell("commit", found)


def _folder(into: str) -> Path:
    here = Path.cwd()
    folder = (here / into).resolve()
    if not folder.is_relative_to(here.resolve()):
        fail(f"into: {into!r} leads outside of the workspace")
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ".git").exists():
        fail(f"{into or 'the workspace'} is a repository already")
    return folder


def _fetch(git: "Git", given: Parameters, commit: str, branch: str) -> str:
    """Fetch what is wanted, as little as the server allows; return what to check out."""
    depth = int(given.number("depth", 1))
    shallow = ("--depth", str(depth)) if depth else ()
    if number := given.text("pull_request"):
        for form in PULL_REQUESTS:
            if git.tried("fetch", "--quiet", *shallow, "origin", form.format(int(float(number)))):
                return commit if commit and git.has(commit) else "FETCH_HEAD"
        fail(f"pull_request: the repository has no pull request {number}\n{git.said}")
    if COMMIT.fullmatch(commit) and git.tried("fetch", "--quiet", *shallow, "origin", commit):
        return commit
    named = not branch or branch == "HEAD" or branch.startswith("refs/")
    wanted = branch if named else f"refs/heads/{branch}"
    git.run("fetch", "--quiet", *shallow, "origin", wanted or "HEAD", tries=TRIES)
    if not commit:
        return "FETCH_HEAD"
    if not git.has(commit) and shallow:  # it lies further back, and the server gives no commits
        git.run("fetch", "--quiet", "--unshallow", "origin", wanted or "HEAD", tries=TRIES)
    if not git.has(commit):
        fail(f"commit: {branch or 'the default branch'} of the repository has no {commit}")
    return commit


class Git:
    """Runs git in a folder, without asking anybody and without anybody's settings."""

    def __init__(self, folder: Path, given: Parameters) -> None:
        self.said = ""
        self._folder = folder
        program = shutil.which("git")
        if program is None:
            fail("git is not installed on this host")
        self._program = program
        token = given.secret("token")
        self._options = ["-c", "credential.helper="]
        # The task's HOME has no settings; those of a repository of another user's are not asked.
        settings = Path(tempfile.mkdtemp(prefix="git-")) / "config"
        settings.write_text("[safe]\n\tdirectory = *\n", encoding="utf-8")
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": str(settings),
            "GIT_ASKPASS": "true",
            "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -o BatchMode=yes"),
        }
        if token:
            self._options += ["-c", f"credential.helper={HELPER}"]
            self._env[TOKEN] = token
            self._env[USER] = given.text("user", "oauth2")

    def tried(self, *words: str) -> bool:
        """Tell whether a command works."""
        done = subprocess.run(  # noqa: S603 (our own words, and checked ones)
            [self._program, *self._options, *words],
            cwd=self._folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        self.said = done.stderr.strip()
        return done.returncode == 0

    def run(self, *words: str, tries: int = 1) -> None:
        """Do a command, several times if need be; a failure ends the program with git's words."""
        for attempt in range(tries):
            if self.tried(*words):
                return
            if attempt + 1 < tries:
                time.sleep(2**attempt)
        fail(f"git {words[0]}: {self.said or 'failed'}")

    def has(self, commit: str) -> bool:
        """Tell whether a commit is here."""
        return self.tried("cat-file", "-e", f"{commit}^{{commit}}")

    def read(self, *words: str) -> str:
        """Return what a command prints."""
        done = subprocess.run(  # noqa: S603 (our own words)
            [self._program, *self._options, *words],
            cwd=self._folder,
            env=self._env,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return done.stdout.strip()


if __name__ == "__main__":
    main()
