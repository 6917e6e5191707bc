"""Options of the form NAME=VALUE."""

import re

import click

from server.definition.selector import KEY

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Pair(click.ParamType[tuple[str, str]]):
    """A name and a value around the first `=`."""

    def __init__(self, what: str, shape: re.Pattern[str]) -> None:
        self.name = what
        self.shape = shape

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        """Return the pair; text without `=` or with an odd name is wrong usage."""
        name, equals, rest = str(value).partition("=")
        if not equals:
            self.fail(f"{value!r} has no '='; write {self.name} as NAME=VALUE", param, ctx)
        if not self.shape.fullmatch(name):
            self.fail(f"{name!r} is not a name for {self.name}", param, ctx)
        return name, rest


LABEL = Pair("a label", KEY)
VARIABLE = Pair("an environment variable", ENV_NAME)
PAIR = Pair("an input", ENV_NAME)
