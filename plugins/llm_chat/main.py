#!/usr/bin/env python3
"""Asks a language model behind an OpenAI-compatible API, and prints the answer as it comes."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx2

from plugins.inside import inside
from plugins.parameters import Parameters, fail, tell

OUTPUT_LETTERS = 16_000
LONGEST_LINE = 1024 * 1024


def main() -> None:
    """Ask what the parameters say."""
    given = Parameters()
    told: dict[str, Any] = {
        "model": given.text("model"),
        "stream": True,
        "messages": _messages(given),
    }
    if given.text("temperature"):
        told["temperature"] = given.number("temperature", 0)
    if given.text("max_tokens"):
        told["max_tokens"] = int(given.number("max_tokens", 1))
    key = given.secret("key")
    headers = {"authorization": f"Bearer {key}"} if key else {}
    url = f"{given.text('api').rstrip('/')}/chat/completions"
    answer = ""
    try:
        for piece in _pieces(url, told, headers, given.number("timeout", 300)):
            answer += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except httpx2.HTTPError as error:
        fail(f"the model's API: {error or type(error).__name__}")
    sys.stdout.write("\n")
    if not answer:
        fail("the model gave no answer")
    if given.text("save"):
        inside(given, "save").write_text(answer, encoding="utf-8")
    tell("answer", answer[:OUTPUT_LETTERS])


def _messages(given: Parameters) -> list[dict[str, str]]:
    if bool(given.text("prompt")) == bool(given.text("prompt_file")):
        fail("say prompt or prompt_file")
    prompt = given.text("prompt")
    if not prompt:
        try:
            prompt = inside(given, "prompt_file").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            fail(f"prompt_file: {error}")
    system = given.text("system")
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": prompt}]


def _pieces(
    url: str, told: dict[str, Any], headers: dict[str, str], seconds: float
) -> Iterator[str]:
    """Give the pieces of an answer as they come: server-sent events, or all in one where not."""
    with httpx2.stream("POST", url, json=told, headers=headers, timeout=seconds) as answer:
        if not answer.is_success:
            answer.read()
            fail(f"the model's API answers {answer.status_code}: {answer.text[:500]}")
        if "event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
            yield _text(answer.text, "message")
            return
        for line in answer.iter_lines():
            data = line.removeprefix("data:").strip()
            if not line.startswith("data:") or not data:
                continue
            if data == "[DONE]":
                return
            yield _text(data, "delta")


def _text(data: str, part: str) -> str:
    try:
        told = json.loads(data)
        if "error" in told:
            fail(f"the model's API: {str(told['error'])[:500]}")
        choices = told.get("choices") or [{}]
        return str(choices[0].get(part, {}).get("content") or "")
    except (ValueError, AttributeError, IndexError, TypeError):
        fail(f"the model's API sends {data[:100]!r}")


if __name__ == "__main__":
    main()
