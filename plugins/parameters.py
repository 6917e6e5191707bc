"""Reads what a plugin of the simple protocol is given: `PLUGIN_*` variables, with clear errors."""

import json
import os
import sys
from typing import NoReturn


class Parameters:
    """The parameters of one run; the agent has compared them with the schema before."""

    def text(self, name: str, default: str = "") -> str:
        """Return a text."""
        return os.environ.get(f"PLUGIN_{name.upper()}", default)

    def number(self, name: str, default: float) -> float:
        """Return a number; anything else ends the program with a word."""
        given = self.text(name)
        try:
            return float(given) if given else default
        except ValueError:
            fail(f"{name}: {given!r} is no number")

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Return whether something is wanted."""
        given = self.text(name)
        return given.lower() in ("true", "1", "yes") if given else default

    def words(self, name: str) -> list[str]:
        """Return a list of texts: parted by commas, or JSON where a text of it has one."""
        given = self.text(name)
        if given.startswith("["):
            try:
                return [
                    each if isinstance(each, str) else json.dumps(each)
                    for each in json.loads(given)
                ]
            except ValueError:
                fail(
                    f"{name}: {given[:100]!r} is neither texts parted by commas nor a list of JSON"
                )
        return [word for word in given.split(",") if word]

    def table(self, name: str) -> dict[str, str]:
        """Return names with their texts, which are an object of JSON."""
        given = self.text(name) or "{}"
        try:
            found = json.loads(given)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            fail(f"{name}: {given[:100]!r} is no object of JSON")
        return {
            key: each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)
            for key, each in found.items()
        }

    def secret(self, name: str) -> str:
        """Return a secret, which its name says in which variable it is; else an empty text."""
        variable = self.text(name)
        if not variable:
            return ""
        value = os.environ.get(variable, "")
        if not value:
            fail(f"{name}: there is no variable {variable}; name it under the job's `secrets`")
        return value


def fail(message: str) -> NoReturn:
    """End with a message for people."""
    sys.stdout.flush()
    sys.stderr.write(f"{message}\n")
    sys.exit(1)


def tell(name: str, value: str) -> None:
    """Tell later jobs a value."""
    if file := os.environ.get("MUSTER_OUTPUT"):
        mark = "END-OF-VALUE"
        while mark in value.split("\n"):
            mark += "-"
        with open(file, "a", encoding="utf-8") as opened:  # noqa: PTH123 (a file of the task's)
            opened.write(f"{name}<<{mark}\n{value}\n{mark}\n")
