"""Conditions and `${{ }}` values in CEL: checked with the file, evaluated when a job is ready.

What an expression may cost is bounded before it is evaluated: its length, how deep it nests, and
that it walks over no lists. Whatever it does wrong is told with its place in the text.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from server.definition.problem import did_you_mean
from server.domain.expression import ExpressionError, Facts

LONGEST = 1024
"""Characters of an expression."""
DEEPEST = 32
"""Brackets, calls and signs inside one another."""
TREE_DEEPEST = 500
"""Levels of the parsed tree; a long chain of operators counts too."""
WALKS = frozenset({"all", "exists", "exists_one", "map", "filter", "reduce", "min"})
ASKS = ("always", "success", "failure")
FUNCTIONS = frozenset(
    {*ASKS, "size", "int", "uint", "double", "string", "bool", "has", "type", "dyn", "matches"}
)
METHODS = frozenset(
    {"contains", "endsWith", "matches", "size", "startsWith"}
    | {f"get{part}" for part in ("FullYear", "Month", "Date", "DayOfMonth", "DayOfWeek")}
    | {f"get{part}" for part in ("DayOfYear", "Hours", "Minutes", "Seconds", "Milliseconds")}
)
EVENT_FIELDS: Mapping[str, Any] = {
    "kind": "push",
    "action": "opened",
    "branch": "main",
    "tag": "v1.0",
    "commit": "0" * 40,
    "author": "someone",
    "message": "a change",
    "base": "main",
    "paths": ["README.md"],
    "title": "a change",
    "number": 1,
    "sender": "someone",
    "url": "",
    "data": {},
}
"""What an event has, each with a sample."""
OUTLINE: Mapping[str, Any] = {
    "event": EVENT_FIELDS,
    "branch": "main",
    "commit": "0" * 40,
    "run": {"id": "", "number": 1},
    "pipeline": {"id": "", "name": ""},
}
SAMPLES: Mapping[str, Any] = {
    "string": "",
    "choice": "",
    "integer": 1,
    "number": 1.5,
    "boolean": True,
}
TEMPLATE = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)

_OPEN = frozenset("([{")
_CLOSE = frozenset(")]}")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with an expression, and where in its text."""

    offset: int
    why: str


@dataclass(frozen=True, slots=True)
class Scope:
    """What an expression may name."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Types of the inputs, by name."""
    needs: frozenset[str] = frozenset()
    """Jobs whose results are known."""
    outputs: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Outputs that those jobs say they have."""
    jobs: frozenset[str] = frozenset()
    """All jobs, for better words about one that is not among `needs`."""
    matrix: frozenset[str] = frozenset()
    event: bool = True

    def names(self) -> dict[str, frozenset[str] | None]:
        """Return what may be named, each with the members that it has; None for any or none."""
        event = frozenset(EVENT_FIELDS)
        return {
            "event": event,
            "branch": None,
            "commit": None,
            "inputs": frozenset(self.inputs),
            "matrix": self.matrix,
            "needs": self.needs,
            "run": frozenset({"id", "number"}),
            "pipeline": frozenset({"id", "name"}),
        }

    def sample(self, result: str) -> dict[str, Any]:
        """Return facts such as there may be."""
        return {
            **OUTLINE,
            "inputs": {name: SAMPLES[kind] for name, kind in self.inputs.items()},
            "matrix": dict.fromkeys(self.matrix, ""),
            "needs": {
                name: {
                    "result": result,
                    "outputs": dict.fromkeys(self.outputs.get(name, ()), ""),
                }
                for name in self.needs
            },
        }


class CelExpressions:
    """See domain.expression.Expressions."""

    def holds(self, condition: str, facts: Facts, *, well: bool = True) -> bool:
        """See Expressions."""
        if not well and not asks_for_failures(condition):
            return False
        value = _value(condition, facts, well=well)
        if not isinstance(value, bool):
            raise ExpressionError(f"the condition {condition!r} is neither true nor false")
        return value

    def fill(self, text: str, facts: Facts) -> str:
        """See Expressions."""
        return TEMPLATE.sub(lambda found: _as_text(found[1].strip(), facts), text)


def _as_text(expression: str, facts: Facts) -> str:
    value = _value(expression, facts, well=True)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ExpressionError(f"{expression!r} is not a text, a number, true or false")


def asks_for_failures(condition: str) -> bool:
    """Whether a condition is asked although not all before it went well.

    Raises:
        ExpressionError: it does not parse.
    """
    called = {token.value for token in _calls(_parse(condition))}
    return not called.isdisjoint(("always", "failure"))


def find_faults(text: str, scope: Scope, *, condition: bool) -> list[Fault]:
    """Return what is wrong with an expression; with `condition` it must be true or false."""
    try:
        tree = _parse(text)
    except _NotCelError as error:
        return [Fault(error.offset, str(error))]
    faults = list(_walks(text, tree))
    faults = faults or [*_unknown_calls(text, tree), *_unknown_names(text, tree, scope)]
    return faults or _fails_on_samples(text, scope, condition=condition)


def find_template_faults(text: str, scope: Scope) -> list[Fault]:
    """Return what is wrong with the `${{ }}` parts of a value."""
    faults = []
    for found in TEMPLATE.finditer(text):
        inner = found[1]
        offset = found.start(1) + len(inner) - len(inner.lstrip())
        for fault in find_faults(inner.strip(), scope, condition=False):
            faults.append(Fault(offset + fault.offset, fault.why))
    rest = TEMPLATE.sub(lambda found: " " * len(found[0]), text)
    if "${{" in rest:
        faults.append(Fault(rest.index("${{"), "this ${{ is never closed by }}"))
    return faults


# ---- parsing


class _NotCelError(ExpressionError):
    def __init__(self, why: str, offset: int = 0) -> None:
        super().__init__(why)
        self.offset = offset


@lru_cache(maxsize=1)
def _environment() -> Any:  # noqa: ANN401 (the library has no types)
    import celpy  # late: it takes longer than most commands

    limit = sys.getrecursionlimit()
    made = celpy.Environment()
    sys.setrecursionlimit(limit)  # it raises that of the whole program; ours nest less deep
    return made


@lru_cache(maxsize=4096)
def _parse(text: str) -> Any:  # noqa: ANN401 (the library has no types)
    """Return an expression's tree.

    Raises:
        _NotCelError: it is no expression, or more than one may be.
    """
    from celpy.celparser import CELParseError

    _bounded(text)
    try:
        tree = _environment().compile(text)
    except CELParseError as error:
        offset = _offset(text, error.line, error.column)
        raise _NotCelError("this is not CEL from here on", offset) from None
    except Exception as error:  # its scanner's own errors are of several kinds
        raise _NotCelError(f"this is not CEL: {str(error).splitlines()[0][:200]}") from None
    if _depth(tree) > TREE_DEEPEST:
        raise _NotCelError("this nests too deep; split it up")
    return tree


def _bounded(text: str) -> None:
    if not text.strip():
        raise _NotCelError("an expression in CEL belongs here")
    if len(text) > LONGEST:
        raise _NotCelError(f"an expression has at most {LONGEST} characters, this has {len(text)}")
    depth = 0
    signs = 0
    for offset, character in enumerate(text):
        signs = signs + 1 if character in "!-" else signs if character == " " else 0
        depth += (character in _OPEN) - (character in _CLOSE)
        if depth > DEEPEST or signs > DEEPEST:
            raise _NotCelError(f"nested deeper than {DEEPEST} levels", offset)


def _depth(tree: Any) -> int:  # noqa: ANN401 (the library has no types)
    deepest, look = 0, [(tree, 1)]
    while look:
        node, depth = look.pop()
        deepest = max(deepest, depth)
        look += ((child, depth + 1) for child in getattr(node, "children", ()))
    return deepest


def _offset(text: str, line: int | None, column: int | None) -> int:
    before = sum(len(each) + 1 for each in text.split("\n")[: (line or 1) - 1])
    return min(len(text), before + (column or 1) - 1)


def _place(text: str, token: Any) -> int:  # noqa: ANN401 (the library has no types)
    return _offset(text, token.line, token.column)


# ---- checks


def _calls(tree: Any) -> Iterator[Any]:  # noqa: ANN401 (the library has no types)
    for node in tree.iter_subtrees():
        if node.data in ("ident_arg", "dot_ident_arg"):
            yield node.children[0]


def _walks(text: str, tree: Any) -> Iterator[Fault]:  # noqa: ANN401 (the library has no types)
    for node in tree.iter_subtrees():
        if node.data == "member_dot_arg" and str(node.children[1]) in WALKS:
            why = f"{node.children[1]}() walks over a list, which conditions here may not"
            yield Fault(_place(text, node.children[1]), why)


def _unknown_calls(text: str, tree: Any) -> Iterator[Fault]:  # noqa: ANN401 (no types)
    for token in _calls(tree):
        if str(token) not in FUNCTIONS:
            hint = did_you_mean(str(token), FUNCTIONS)
            yield Fault(_place(text, token), f"there is no function {str(token)!r}{hint}")
    for node in tree.iter_subtrees():
        token = node.children[1] if node.data == "member_dot_arg" else "size"
        if str(token) not in METHODS:
            hint = did_you_mean(str(token), METHODS)
            yield Fault(_place(text, token), f"there is no function {str(token)!r}{hint}")


def _unknown_names(text: str, tree: Any, scope: Scope) -> Iterator[Fault]:  # noqa: ANN401
    known = scope.names()
    in_chains = set()
    for node in tree.iter_subtrees_topdown():
        if node.data != "member_dot" or id(node) in in_chains:
            continue
        chain, inner = [], node
        while getattr(inner, "data", "") in ("member", "member_dot", "primary"):
            in_chains.add(id(inner))
            if inner.data == "member_dot":
                chain.append(inner.children[1])
            inner = inner.children[0]
        if getattr(inner, "data", "") == "ident":
            in_chains.add(id(inner))
            yield from _unknown_member(text, inner.children[0], chain[::-1], scope)
    for node in tree.iter_subtrees():
        if node.data == "ident" and id(node) not in in_chains:
            token = node.children[0]
            if str(token) not in known:
                yield Fault(_place(text, token), _no_name(str(token), known))


def _no_name(name: str, known: Mapping[str, Any]) -> str:
    hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
    return f"nothing is called {name!r} here{hint}"


def _unknown_member(text: str, root: Any, chain: list[Any], scope: Scope) -> Iterator[Fault]:  # noqa: ANN401
    name, known = str(root), scope.names()
    if name not in known:
        yield Fault(_place(text, root), _no_name(name, known))
        return
    members, first = known[name], str(chain[0])
    if members is None:
        yield Fault(_place(text, chain[0]), f"{name} is a text and has no {first!r}")
    elif first not in members:
        yield Fault(_place(text, chain[0]), _no_member(name, first, members, scope))
    elif name == "needs" and len(chain) > 1:
        yield from _unknown_in_needs(text, first, chain[1:], scope)


def _no_member(name: str, member: str, members: frozenset[str], scope: Scope) -> str:
    if name == "needs" and member in scope.jobs:
        return f"the job does not wait for {member!r}: put it into its `needs`"
    there_are = f"; there are {', '.join(sorted(members))}" if members else "; there are none"
    return f"{name} has no {member!r}{did_you_mean(member, members) or there_are}"


def _unknown_in_needs(text: str, job: str, chain: list[Any], scope: Scope) -> Iterator[Fault]:
    what = str(chain[0])
    if what not in ("result", "outputs"):
        hint = did_you_mean(what, ("result", "outputs"))
        why = f"a job has `result` and `outputs`, and no {what!r}{hint}"
        yield Fault(_place(text, chain[0]), why)
    elif what == "outputs" and len(chain) > 1:
        outputs = scope.outputs.get(job, frozenset())
        if str(chain[1]) not in outputs:
            hint = did_you_mean(str(chain[1]), outputs)
            why = f"the job {job!r} says no output {str(chain[1])!r} in its `outputs`{hint}"
            yield Fault(_place(text, chain[1]), why)


def _fails_on_samples(text: str, scope: Scope, *, condition: bool) -> list[Fault]:
    if "event.data" in text or "event[" in text:
        return []  # nobody knows what will be in it
    for well, result in ((True, "success"), (False, "failed")):
        try:
            value = _value(text, scope.sample(result), well=well)
        except ExpressionError as error:
            return [Fault(0, str(error))]
        if condition and not isinstance(value, bool):
            return [Fault(0, "a condition must be true or false, and this is not")]
        if not condition and not isinstance(value, bool | str | int | float):
            return [Fault(0, "must be a text, a number, true or false")]
    return []


# ---- evaluating


def _value(text: str, facts: Facts, *, well: bool) -> Any:  # noqa: ANN401 (a JSON value)
    """Return what an expression is worth, as plain data.

    Raises:
        ExpressionError: it has no value.
    """
    from celpy import celtypes
    from celpy.adapter import json_to_cel

    functions = {
        "always": lambda: celtypes.BoolType(True),
        "success": lambda: celtypes.BoolType(well),
        "failure": lambda: celtypes.BoolType(not well),
        "_%_": _remainder,
    }
    tree = _parse(text)
    try:
        program = _environment().program(tree, functions=functions)
        known = {name: json_to_cel(value) for name, value in facts.items()}
        return _plain(program.evaluate(known))
    except RecursionError:
        raise ExpressionError(f"{text[:64]}…: nests too deep") from None
    except Exception as error:
        # Mostly CELEvalError; but whatever the library raises must not stop the run's transaction.
        raise ExpressionError(f"{text}: {_in_words(error)}") from None


def _remainder(left: Any, right: Any) -> Any:  # noqa: ANN401 (CEL values)
    """Return what a division leaves; the library would format texts, however wide they ask for."""
    if not isinstance(left, int) or not isinstance(right, int):
        raise TypeError("only whole numbers have a remainder")
    return left % right


def _in_words(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    while isinstance(cause, tuple) and cause:
        cause = cause[0]
    words = str(cause).split(" (in activation")[0].splitlines()
    if words and words[0].startswith("found no matching overload"):
        return "its values are of kinds that do not go together"
    return words[0][:200] if words else type(error).__name__


def _plain(value: Any) -> Any:  # noqa: ANN401 (a CEL value, a JSON value)
    """Return a CEL value as plain data."""
    from celpy import celtypes

    if isinstance(value, celtypes.BoolType):
        return bool(value)
    if isinstance(value, celtypes.IntType | celtypes.UintType):
        return int(value)
    if isinstance(value, celtypes.DoubleType):
        return float(value)
    if isinstance(value, celtypes.StringType):
        return str(value)
    return value
