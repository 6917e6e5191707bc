"""Hostile HTTP: no path, header or body makes the server stumble, and memory stays flat."""

import http.client
import re
import socket

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.access import ROUTES
from tests.forge_samples import SAMPLES, signed

VISIBLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
TEMPLATES = sorted({route.partition(" ")[2] for route in ROUTES})
"""The paths of all routes, from the access table: a test there fails when one is missing."""


def filled(template, text):
    return re.sub(r"\{\w+\}", lambda _: text, template)


PATHS = st.one_of(
    st.builds(filled, st.sampled_from(TEMPLATES), st.one_of(st.just("x"), VISIBLE)),
    VISIBLE.map("/{}".format),
    st.sampled_from(["/hooks/%00", "/hooks/..%2f..", "/hooks/x?namespace=%ff", "/hooks/x?a=b&a=c"]),
)
METHODS = st.sampled_from(["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)
HEADERS = st.dictionaries(
    st.sampled_from(
        [
            *("authorization", "content-type", "muster-namespace", "x-hub-signature-256"),
            *("x-github-event", "x-gitlab-token", "x-gitlab-event", "webhook-id"),
            *(
                "webhook-timestamp",
                "webhook-signature",
                "content-encoding",
                "expect",
                "x-event-key",
            ),
        ]
    ),
    VALUES,
    max_size=6,
)
BODIES = st.one_of(
    st.binary(max_size=2000), st.sampled_from([b"", b"{}", b"[" * 1000, b'{"a":1e999}'])
)


@pytest.fixture(scope="module")
def server():
    from tests.e2e.kit import Kit

    kit = Kit()
    server = kit.start_server()
    yield server
    said = "".join(text for _, text in kit.stderr())
    kit.close()
    bad = [line for line in said.splitlines() if "Traceback" in line or '"level": "error"' in line]
    assert not bad, bad[:3]


class CutOffError(Exception):
    """The server ended the connection without an answer."""


def ask(server, method, path, headers, body):
    host, port = server.http.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        connection.request(
            method, path, body, {name: value.encode("latin-1") for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected) as error:
        raise CutOffError from error
    finally:
        connection.close()


@settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(METHODS, PATHS, HEADERS, BODIES)
def test_no_request_makes_the_server_stumble(server, method, path, headers, body):
    try:
        status, text = ask(server, method, path, headers, body)
    except (ValueError, UnicodeError):
        return  # the client itself does not send it
    except CutOffError:  # as HTTP/1.1 lets a server do; that it lives, the next request shows
        assert ask(server, "GET", "/livez", {}, None)[0] == 200
        return
    assert status < 500, (status, text)
    assert b"Traceback" not in text
    assert b'File "' not in text


@pytest.mark.parametrize(
    "sent",
    [
        b"\x00\xff" * 500,
        b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /hooks/x HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /hooks/x HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /hooks/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZZ\r\n",
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=range(9),
)
def test_bytes_that_are_no_http_are_answered_or_cut_off(server, sent):
    host, port = server.http.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=15) as connection:
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(65536)
        except (BrokenPipeError, ConnectionResetError):  # no timeout: a server that hangs fails
            answer = b""
    assert b" 500 " not in answer.split(b"\r\n")[0]
    assert b"Traceback" not in answer
    assert ask(server, "GET", "/livez", {}, None)[0] == 200


def test_memory_stays_flat_under_calls_that_are_refused(server):
    process = psutil.Process(server.pid)

    def refused(number):
        for place in range(number):
            kind, event, payload = SAMPLES[place % len(SAMPLES)]
            headers, body = signed(kind, event, payload, delivery="d")
            assert ask(server, "POST", "/hooks/nothing", headers, body)[0] == 404

    refused(300)
    before = process.memory_info().rss
    refused(1500)
    assert process.memory_info().rss - before < 20 * 1024 * 1024
