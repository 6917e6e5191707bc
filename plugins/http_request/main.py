#!/usr/bin/env python3
"""Sends an HTTP request, and fails unless the answer is as expected."""

import sys
import time

import httpx2

from plugins.inside import inside
from plugins.parameters import Parameters, fail, tell

SHOWN = 2000
"""Letters of an answer that the log gets."""

OUTPUT_BYTES = 32 * 1024
AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


def main() -> None:
    """Send what the parameters say."""
    given = Parameters()
    headers = given.table("headers")
    if token := given.secret("token"):
        headers["authorization"] = f"Bearer {token}"
    content = _content(given)
    if given.text("json"):
        headers.setdefault("content-type", "application/json")
    method = given.text("method") or ("POST" if content else "GET")
    expected = [int(code) for code in given.words("expect")]
    tries = int(given.number("retries", 2)) + 1
    answer = None
    with httpx2.Client(timeout=given.number("timeout", 30), follow_redirects=True) as client:
        for attempt in range(tries):
            last = attempt + 1 == tries
            try:
                answer = client.request(method, given.text("url"), headers=headers, content=content)
            except httpx2.HTTPError as error:
                if last:
                    fail(f"{method}: {error or type(error).__name__}")
            else:
                if answer.status_code not in AGAIN or answer.status_code in expected or last:
                    break
            time.sleep(min(2**attempt, 30))
    if answer is not None:
        _take(given, method, answer, expected)


def _content(given: Parameters) -> bytes:
    kinds = [name for name in ("body", "json", "file") if given.text(name)]
    if len(kinds) > 1:
        fail(f"{kinds[1]}: there is {kinds[0]} already")
    if kinds == ["file"]:
        try:
            return inside(given, "file").read_bytes()
        except OSError as error:
            fail(f"file: {error.strerror}")
    return given.text(kinds[0]).encode() if kinds else b""


def _take(given: Parameters, method: str, answer: httpx2.Response, expected: list[int]) -> None:
    sys.stdout.write(f"{method} {answer.url} → {answer.status_code}\n")
    fine = answer.status_code in expected if expected else answer.is_success
    if not fine:
        wanted = ", ".join(map(str, expected)) or "2xx"
        sys.stdout.write(f"{answer.text[:SHOWN]}\n")
        fail(f"the answer is {answer.status_code}, and should be {wanted}")
    if given.text("save"):
        target = inside(given, "save")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(answer.content)
    elif answer.text:
        sys.stdout.write(f"{answer.text[:SHOWN]}\n")
    tell("status", str(answer.status_code))
    if name := given.text("output"):
        if len(answer.content) > OUTPUT_BYTES:
            fail(f"output: the answer has more than {OUTPUT_BYTES >> 10} KiB; use save")
        tell(name, answer.text)


if __name__ == "__main__":
    main()
