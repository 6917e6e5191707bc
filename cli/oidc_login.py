"""Logging in at an OpenID Connect issuer: authorization code with PKCE, over a loopback page."""

import base64
import hashlib
import hmac
import json
import secrets
import urllib.error
import urllib.parse
import urllib.request
import webbrowser
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import click

from cli.failure import CommandFailed

PATIENCE_SECONDS = 300.0
ANSWER_SECONDS = 15.0
LARGEST_ANSWER = 1024 * 1024
DONE = b"You are logged in; this page can be closed.\n"
FAILED = b"That did not work; the terminal tells more.\n"


@dataclass(frozen=True)
class Login:
    """What came of a login."""

    id_token: str
    nonce: str


def log_in(
    issuer: str, client_id: str, client_secret: str = "", *, browser: bool, port: int = 0
) -> Login:
    """Let a person log in, in a browser on this machine.

    Raises:
        CommandFailed: they did not, or the issuer does not do its part.
    """
    metadata = _get(issuer.rstrip("/") + "/.well-known/openid-configuration")
    if metadata.get("issuer") != issuer:
        raise CommandFailed(f"{issuer} calls itself {metadata.get('issuer')!r}")
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    with _page(port) as page:
        question = {
            "response_type": "code",
            "client_id": client_id,
            "redirect_uri": page.address,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": _challenge(verifier),
            "code_challenge_method": "S256",
        }
        address = f"{metadata['authorization_endpoint']}?{urllib.parse.urlencode(question)}"
        click.echo(f"Log in at: {address}", err=True)
        if browser:
            webbrowser.open(address)
        code = _code(page.answer(), state)
        answer = _post(
            str(metadata["token_endpoint"]),
            {
                "grant_type": "authorization_code",
                "code": code,
                "redirect_uri": page.address,
                "client_id": client_id,
                "code_verifier": verifier,
                **({"client_secret": client_secret} if client_secret else {}),
            },
        )
    if not isinstance(answer.get("id_token"), str):
        raise CommandFailed(f"{issuer} gives no ID token; is the scope openid allowed?")
    return Login(answer["id_token"], nonce)


def _page(port: int) -> "_Page":
    try:
        return _Page(port)
    except OSError as error:
        raise CommandFailed(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None


class _Page(HTTPServer):
    """The page that the issuer sends the browser back to."""

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.timeout = PATIENCE_SECONDS
        self.said: dict[str, str] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/callback"

    def answer(self) -> dict[str, str]:
        """Return what the issuer says.

        Raises:
            CommandFailed: nobody came.
        """
        while self.said is None:
            self.handle_request()
            if self.timed_out:
                raise CommandFailed("nobody logged in within five minutes")
        return self.said

    timed_out = False

    def handle_timeout(self) -> None:
        self.timed_out = True


class _Handler(BaseHTTPRequestHandler):
    server: _Page

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        if url.path != "/callback":
            self.send_error(404)
            return
        self.server.said = dict(urllib.parse.parse_qsl(url.query))
        body = DONE if "code" in self.server.said else FAILED
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is the person's."""


def _code(said: dict[str, str], state: str) -> str:
    if not hmac.compare_digest(said.get("state", "").encode(), state.encode()):
        raise CommandFailed("the answer belongs to another login; try again")
    if "code" not in said:
        why = said.get("error_description") or said.get("error", "no reason")
        raise CommandFailed(f"the issuer refuses: {why}")
    return said["code"]


def _challenge(verifier: str) -> str:
    digest = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _get(url: str) -> dict[str, Any]:
    return _ask(urllib.request.Request(url, headers={"accept": "application/json"}))  # noqa: S310


def _post(url: str, form: dict[str, str]) -> dict[str, Any]:
    data = urllib.parse.urlencode(form).encode()
    return _ask(urllib.request.Request(url, data, {"accept": "application/json"}))  # noqa: S310


def _ask(request: urllib.request.Request) -> dict[str, Any]:
    """Return an object that the issuer answers with.

    Raises:
        CommandFailed: it does not, or would be asked in plain text over a network.
    """
    host = urllib.parse.urlsplit(request.full_url)
    if host.scheme != "https" and host.hostname not in ("127.0.0.1", "localhost", "::1"):
        raise CommandFailed(f"{request.full_url} is not https")
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310
            data = json.loads(answer.read(LARGEST_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(500).decode(errors="replace")
        raise CommandFailed(f"{request.full_url} answers {error.code}: {said}") from None
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{request.full_url}: {error}") from None
    if not isinstance(data, dict):
        raise CommandFailed(f"{request.full_url} does not answer with an object")
    return data
