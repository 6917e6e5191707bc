"""Secrets are compared with `hmac.compare_digest`, or not at all but looked up by their digest.

A comparison of something that bears a secret's name, and is none, says so in a comment with the
words "no secret" on its line or the one above.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("server", "agent", "cli", "plugins")
SECRET = re.compile(
    r"(^|_)(token|secret|digest|signature|password|credential|fingerprint|mac|hmac|wrapped|text_of)s?$"
)
REASON = re.compile(r"#.*\bno secret\b", re.IGNORECASE)
OPERATORS = (ast.Eq, ast.NotEq)


def suspicious(source: str) -> list[int]:
    """Return the lines where something with a secret's name is compared, without a reason."""
    lines = source.splitlines()
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, OPERATORS) for operator in node.ops)
        and any(map(is_named_like_a_secret, (node.left, *node.comparators)))
        and not any(REASON.search(line) for line in lines[max(0, node.lineno - 2) : node.lineno])
    ]


def is_named_like_a_secret(node: ast.expr) -> bool:
    name = getattr(node, "attr", getattr(node, "id", ""))
    return bool(SECRET.search(name))


@pytest.mark.parametrize("room", ROOMS)
def test_no_secret_is_compared_letter_by_letter(room):
    found = {
        str(path.relative_to(ROOT)): lines
        for path in sorted((ROOT / room).rglob("*.py"))
        if (lines := suspicious(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("if token == given: pass", [1]),
        ("x = 1\nok = self.digest != other", [2]),
        ("given == request.api_token", [1]),
        ("# No secret: anybody knows it.\ntoken == given", []),
        ("token == given  # no secret", []),
        ("hmac.compare_digest(token, given)", []),
        ("token is None or token_id == given", []),
        ("kind == TokenKind.USER", []),
    ],
)
def test_what_is_found(source, lines):
    assert suspicious(source) == lines
