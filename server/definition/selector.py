"""Selectors in the string form of Kubernetes: `zone in (a,b), !spot, cpus>3`."""

import re

from server.domain.requirement import Operator, Requirement

__all__ = ["KEY", "Operator", "Requirement", "SelectorSyntaxError", "parse_selector"]

KEY = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_./-]*[A-Za-z0-9])?")
TOKEN = re.compile(r"\s*(?:(?P<sign>==|!=|[=!<>(),])|(?P<word>[^\s=!<>(),]+)|(?P<end>\s*$))")
INTEGER = re.compile(r"[+-]?[0-9]+")
SETS = {"in": Operator.IN, "notin": Operator.NOT_IN}
COMPARISONS = {">": Operator.GT, "<": Operator.LT}


class SelectorSyntaxError(ValueError):
    """The text is not a selector; `position` is the place of the first offence."""

    def __init__(self, wanted: str, text: str, position: int) -> None:
        self.wanted = wanted
        self.position = position
        super().__init__(f"{wanted}\n  {text}\n  {'':{position}}^")


def parse_selector(text: str) -> list[Requirement]:
    """Return the requirements of a selector, in order.

    Raises:
        SelectorSyntaxError: with a message that points at the place.
    """
    parser = _Parser(text)
    requirements = [parser.requirement()]
    while parser.take(","):
        requirements.append(parser.requirement())
    if parser.kind != "end":
        raise parser.error("a comma or the end belongs here")
    return requirements


class _Parser:
    """Reads requirements from left to right, one token ahead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.after = 0
        self.advance()

    def advance(self) -> str:
        """Step over the current token and return its text."""
        passed = getattr(self, "token", "")
        found = TOKEN.match(self.text, self.after)
        assert found, "every text begins with a sign, a word or its end"  # noqa: S101 - regex
        self.kind = found.lastgroup or "end"
        self.token = found[self.kind]
        self.start, self.after = found.span(self.kind)
        return passed

    def take(self, sign: str) -> bool:
        """Step over a sign if it is next."""
        if self.kind == "sign" and self.token == sign:  # no secret: a word of the selector
            self.advance()
            return True
        return False

    def expect(self, sign: str, wanted: str) -> None:
        """Step over a sign that must be next."""
        if not self.take(sign):
            raise self.error(wanted)

    def error(self, wanted: str) -> SelectorSyntaxError:
        """Return an error at the current token."""
        return SelectorSyntaxError(wanted, self.text, min(self.start, len(self.text)))

    def requirement(self) -> Requirement:
        """Read one requirement."""
        if self.take("!"):
            return Requirement(self.key(), Operator.NOT_EXISTS)
        key = self.key()
        for signs, operator in ((("=", "=="), Operator.IN), (("!=",), Operator.NOT_IN)):
            if any(self.take(sign) for sign in signs):
                return Requirement(key, operator, (self.value(),))
        for sign, operator in COMPARISONS.items():
            if self.take(sign):
                return Requirement(key, operator, (self.integer(),))
        if self.kind == "word":
            return Requirement(key, self.set_operator(), self.values())
        return Requirement(key, Operator.EXISTS)

    def key(self) -> str:
        """Read the name of a label."""
        if self.kind != "word" or not KEY.fullmatch(self.token):
            raise self.error("the name of a label belongs here")
        return self.advance()

    def value(self) -> str:
        """Read a value; nothing at all is the empty value."""
        return self.advance() if self.kind == "word" else ""

    def integer(self) -> str:
        """Read a whole number."""
        if self.kind != "word" or not INTEGER.fullmatch(self.token):
            raise self.error("a whole number belongs here")
        return self.advance()

    def set_operator(self) -> Operator:
        """Read `in` or `notin`."""
        if self.token not in SETS:
            raise self.error("one of = != in notin > < or a comma belongs here")
        return SETS[self.advance()]

    def values(self) -> tuple[str, ...]:
        """Read values in brackets."""
        self.expect("(", "an opening bracket belongs here")
        values = [self.value()]
        while self.take(","):
            values.append(self.value())
        self.expect(")", "a comma or a closing bracket belongs here")
        return tuple(values)
