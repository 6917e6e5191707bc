"""http-request, notify, forge-status, cache and llm-chat, over real HTTP and SMTP."""

import json
import os
import socketserver
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from plugins.forge_status.main import STATES, Status, request_of
from tests.unit.plugins.running import run

COMMIT = "a" * 40


class Handler(BaseHTTPRequestHandler):
    def answer(self):
        size = int(self.headers.get("content-length", 0))
        self.server.seen.append(
            (self.command, self.path, dict(self.headers), self.rfile.read(size))
        )
        status, kind, body = self.server.answers.pop(0) if self.server.answers else (200, "", b"")
        self.send_response(status)
        self.send_header("content-type", kind or "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = answer  # noqa: N815 - what the base class asks for

    def log_message(self, *_):
        pass


@pytest.fixture
def web():
    """A server that keeps what it is sent; `answers` are given one after the other."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answers = [], []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


# ---- http-request


def test_a_request_is_sent_and_its_answer_kept(web, tmp_path):
    web.answers = [(503, "", b""), (201, "", "grüße".encode())]
    output = tmp_path / "output"
    code, out, err = run(
        "http-request",
        {
            "url": f"{web.url}/x",
            "headers": {"X-A": "1,2"},
            "json": {"a": [1]},
            "token": "TOKEN",
            "expect": [201],
            "retries": 1,
            "save": "out/answer.txt",
            "output": "said",
        },
        tmp_path,
        {"TOKEN": "tell-nobody", "MUSTER_OUTPUT": str(output)},
    )
    assert (code, err) == (0, "")
    assert out == f"POST {web.url}/x → 201\n"
    assert len(web.seen) == 2
    method, path, headers, body = web.seen[-1]
    assert (method, path, json.loads(body)) == ("POST", "/x", {"a": [1]})
    assert headers["authorization"] == "Bearer tell-nobody"
    assert headers["X-A"] == "1,2"
    assert (tmp_path / "out/answer.txt").read_text() == "grüße"
    assert "said<<END-OF-VALUE\ngrüße\nEND-OF-VALUE" in output.read_text()


@pytest.mark.parametrize(
    ("settings", "answer", "why"),
    [
        ({}, (404, "", b"no such"), "the answer is 404, and should be 2xx"),
        ({"expect": [204]}, (200, "", b""), "the answer is 200, and should be 204"),
        ({"body": "a", "file": "b"}, None, "file: there is body already"),
        ({"file": "../x"}, None, "leads outside of the workspace"),
        ({"save": "/etc/x"}, (200, "", b""), "leads outside of the workspace"),
        ({"token": "NOTHING"}, None, "there is no variable NOTHING"),
    ],
)
def test_what_is_not_as_expected_fails_with_a_reason(web, tmp_path, settings, answer, why):
    web.answers = [answer] if answer else []
    code, _, err = run("http-request", {"url": web.url, "retries": 0, **settings}, tmp_path)
    assert (code, why in err) == (1, True), err


def test_a_server_that_is_away_is_told(tmp_path):
    code, _, err = run("http-request", {"url": "http://127.0.0.1:1/", "retries": 0}, tmp_path)
    assert (code, err.startswith("GET: ")) == (1, True)


# ---- notify


class Mailbox(socketserver.StreamRequestHandler):
    """As much of SMTP as a mail needs."""

    def handle(self):
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            self.server.said.append(line.decode().strip())
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                while (line := self.rfile.readline()) != b".\r\n":
                    self.server.mail += line
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 fine\r\n")
            if word == b"QUIT":
                return


@contextmanager
def mailbox():
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Mailbox)
    server.said, server.mail = [], b""
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_people_are_told_in_every_way(web, tmp_path):
    facts = {"MUSTER_BRANCH": "main", "MUSTER_RUN_NUMBER": "7", "HOOK": f"{web.url}/secret"}
    with mailbox() as mails:
        port = mails.server_address[1]
        code, out, err = run(
            "notify",
            {
                "title": "Run {number}",
                "message": "{branch} is fine",
                "webhook": f"{web.url}/hook",
                "slack": "HOOK",
                "channel": "#builds",
                "mail_to": ["a@example.com", "b@example.com"],
                "smtp": f"smtp://127.0.0.1:{port}",
            },
            tmp_path,
            facts,
        )
    assert (code, out, err) == (0, "told in 3 ways\n", "")
    hook, slack = (json.loads(body) for _, _, _, body in web.seen)
    assert hook == {"title": "Run 7", "message": "main is fine", "branch": "main", "number": "7"}
    assert slack == {"text": "*Run 7*\nmain is fine", "channel": "#builds"}
    assert sum(line.startswith("rcpt TO") for line in map(str, mails.said)) == 2
    assert b"Subject: Run 7" in mails.mail
    assert b"main is fine" in mails.mail


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "say webhook, slack or mail_to"),
        ({"message": "{nobody}", "slack": "http://x"}, "there is no {nobody}; there are branch"),
        ({"slack": "HOOK"}, "there is no variable HOOK"),
        ({"mail_to": ["a@b"], "smtp": "smtp://127.0.0.1:1"}, "mail by 127.0.0.1: "),
    ],
)
def test_what_cannot_be_told_is_a_failure(tmp_path, settings, why):
    code, _, err = run("notify", {"message": "m", **settings}, tmp_path)
    assert (code, why in err) == (1, True), err


def test_a_webhook_that_refuses_is_named_without_its_secret(web, tmp_path):
    web.answers = [(403, "", b"no")]
    code, _, err = run("notify", {"message": "m", "slack": f"{web.url}/T0/B0/key"}, tmp_path)
    assert code == 1
    assert "answers 403: no" in err
    assert "key" not in err


# ---- forge-status


STATUS = Status("failed", "ci/build", "It broke", "https://muster.example/run")


@pytest.mark.parametrize(
    ("forge", "host", "path", "url", "header", "told"),
    [
        (
            *("github", "github.com", "o/r"),
            f"https://api.github.com/repos/o/r/statuses/{COMMIT}",
            ("authorization", "Bearer t"),
            {"state": "failure", "context": "ci/build", "target_url": STATUS.url},
        ),
        (
            *("gitlab", "git.example", "group/sub/r"),
            f"https://git.example/api/v4/projects/group%2Fsub%2Fr/statuses/{COMMIT}",
            ("private-token", "t"),
            {"state": "failed", "name": "ci/build", "target_url": STATUS.url},
        ),
        (
            *("forgejo", "code.example", "o/r"),
            f"https://code.example/api/v1/repos/o/r/statuses/{COMMIT}",
            ("authorization", "token t"),
            {"state": "failure", "context": "ci/build", "target_url": STATUS.url},
        ),
        (
            *("bitbucket", "bitbucket.org", "o/r"),
            f"https://api.bitbucket.org/2.0/repositories/o/r/commit/{COMMIT}/statuses/build",
            ("authorization", "Bearer t"),
            {"state": "FAILED", "key": "ci/build", "name": "ci/build", "url": STATUS.url},
        ),
    ],
)
def test_each_forge_is_called_in_its_own_form(forge, host, path, url, header, told):
    found, headers, body = request_of(forge, "", host, path, COMMIT, STATUS, "t")
    assert found == url
    assert headers[header[0]] == header[1]
    assert body == {**told, "description": "It broke"}
    assert set(STATES["github"]) == set(STATES["gitlab"]) == set(STATES["bitbucket"])


def test_a_status_is_told(web, tmp_path):
    web.answers = [(500, "", b""), (201, "", b"{}")]
    env = {"T": "tell-nobody", "MUSTER_REPO_URL": "git@forge.example:o/r.git"}
    env["MUSTER_COMMIT"] = COMMIT
    settings = {"forge": "gitea", "state": "success", "token": "T", "api": web.url}
    code, out, err = run("forge-status", settings, tmp_path, env)
    assert (code, out, err) == (0, f"o/r@{COMMIT[:12]}: muster success\n", "")
    assert [path for _, path, _, _ in web.seen] == [f"/repos/o/r/statuses/{COMMIT}"] * 2
    code, _, err = run("forge-status", settings, tmp_path, {**env, "MUSTER_COMMIT": "abc"})
    assert (code, "should be a whole commit id" in err) == (1, True)


# ---- cache


def cached(do, folder, tmp_path, key="deps", **more):
    store = tmp_path / "store"
    store.mkdir(exist_ok=True)
    folder.mkdir(exist_ok=True)
    env = {"MUSTER_CACHE_DIR": str(store), "MUSTER_OUTPUT": str(tmp_path / "output")}
    settings = {"do": do, "key": key, "paths": ["lib", "absent"], **more}
    return run("cache", settings, folder, env)


def test_a_folder_is_kept_and_restored(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "lib").mkdir(parents=True)
    (one / "lib/a.txt").write_text("a")
    (one / "lock").write_text("1")
    assert cached("restore", one, tmp_path, hash=["lock"])[1].startswith("nothing is kept")
    code, out, err = cached("save", one, tmp_path, hash=["lock"])
    assert (code, err) == (0, "")
    assert "absent is not there and is left out\nkept deps-" in out
    assert "is kept already" in cached("save", one, tmp_path, hash=["lock"])[1]
    code, out, _ = cached("restore", two, tmp_path, key="deps-other", fallbacks=["deps-"])
    assert (code, out.startswith("restored deps-")) == (0, True)
    assert (two / "lib/a.txt").read_text() == "a"
    assert (tmp_path / "output").read_text().endswith("hit<<END-OF-VALUE\nfalse\nEND-OF-VALUE\n")


def test_an_entry_that_leads_outside_is_refused(tmp_path):
    import io
    import tarfile

    (tmp_path / "store").mkdir()
    with tarfile.open(tmp_path / "store/deps.tar", "w") as archive:
        member = tarfile.TarInfo("../evil")
        member.size = 1
        archive.addfile(member, io.BytesIO(b"x"))
    code, _, err = cached("restore", tmp_path / "one", tmp_path)
    assert (code, "cannot be restored" in err) == (1, True)
    assert not (tmp_path / "evil").exists()


def test_the_oldest_entries_go_when_there_are_too_many_bytes(tmp_path):
    one = tmp_path / "one"
    (one / "lib").mkdir(parents=True)
    for number in range(3):
        (one / "lib/data").write_bytes(os.urandom(700_000))
        assert cached("save", one, tmp_path, key=f"k{number}", most=1)[0] == 0
        os.utime(tmp_path / f"store/k{number}.tar", (number, number))
    assert [path.name for path in (tmp_path / "store").iterdir()] == ["k2.tar"]


def test_paths_outside_are_not_kept(tmp_path):
    code, _, err = cached("save", tmp_path / "one", tmp_path, paths=["../.."])
    assert (code, "leads outside" in err) == (1, True)
    assert list((tmp_path / "store").iterdir()) == []


# ---- llm-chat


def chunk(text):
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def test_an_answer_comes_in_pieces(web, tmp_path):
    stream = b": ping\n\n" + chunk("Hel") + chunk("lo") + b"data: [DONE]\n\n"
    web.answers = [(200, "text/event-stream", stream)]
    (tmp_path / "question").write_text("Well?")
    code, out, err = run(
        "llm-chat",
        {
            **{
                "api": f"{web.url}/v1",
                "model": "m",
                "prompt_file": "question",
                "system": "Be brief",
            },
            **{"key": "KEY", "temperature": 0, "max_tokens": 5, "save": "answer.txt"},
        },
        tmp_path,
        {"KEY": "tell-nobody"},
    )
    assert (code, out, err) == (0, "Hello\n", "")
    assert (tmp_path / "answer.txt").read_text() == "Hello"
    _, path, headers, body = web.seen[0]
    assert (path, headers["authorization"]) == ("/v1/chat/completions", "Bearer tell-nobody")
    told = json.loads(body)
    assert [message["role"] for message in told["messages"]] == ["system", "user"]
    assert (told["stream"], told["temperature"], told["max_tokens"]) == (True, 0, 5)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((401, "", b"who?"), "answers 401: who?"),
        ((200, "text/event-stream", b"data: {\n\n"), "sends '{'"),
        ((200, "text/event-stream", b'data: {"error": "busy"}\n\n'), "busy"),
        ((200, "text/event-stream", b""), "gave no answer"),
    ],
)
def test_an_answer_that_is_none_is_told(web, tmp_path, answer, why):
    web.answers = [answer]
    settings = {"api": web.url, "model": "m", "prompt": "p"}
    code, _, err = run("llm-chat", settings, tmp_path)
    assert (code, why in err) == (1, True), err


def test_an_answer_in_one_piece_is_taken_too(web, tmp_path):
    whole = json.dumps({"choices": [{"message": {"content": "yes"}}]}).encode()
    web.answers = [(200, "application/json", whole)]
    settings = {"api": web.url, "model": "m", "prompt": "p"}
    assert run("llm-chat", settings, tmp_path)[:2] == (0, "yes\n")
