"""Values that whoever starts a run gives, by the types that the pipeline declares."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from server.domain.checks import Checks
from server.domain.pipeline import Input

VALUE_LIMIT = 16_384
"""Characters of a value."""


class _WrongValueError(ValueError):
    """A value is not what its input asks for; the text says what would be right."""


def resolve_inputs(declared: Sequence[Input], given: Mapping[str, object]) -> dict[str, Any]:
    """Return a value of its type for each input that has one.

    Given values may be of their type or its text, such as `"3"` for 3.

    Raises:
        Invalid: one is unknown, missing or not of its type, by its path, as in `inputs[level]`.
    """
    checks = Checks()
    known = {each.name for each in declared}
    for name in given:
        if name not in known:
            there_are = ", ".join(sorted(known)) or "none"
            checks.fail(f"inputs[{name}]", f"the pipeline has no such input; it has: {there_are}")
    values = {}
    for each in declared:
        if each.name in given:
            try:
                values[each.name] = _value(each, given[each.name])
            except _WrongValueError as error:
                checks.fail(f"inputs[{each.name}]", str(error))
        elif each.default is not None:
            values[each.name] = each.default
        elif each.required:
            checks.fail(f"inputs[{each.name}]", "must be given")
        else:
            values[each.name] = _EMPTY[each.type]
    checks.done()
    return values


_EMPTY: dict[str, Any] = {
    "string": "",
    "choice": "",
    "integer": 0,
    "number": 0.0,
    "boolean": False,
}
"""What an input is that nobody has given and that has no default."""


def _value(declared: Input, given: object) -> Any:  # noqa: ANN401 (a JSON value)
    if declared.type == "boolean":
        return _boolean(given)
    if declared.type == "integer":
        return _integer(given)
    if declared.type == "number":
        return _number(given)
    text = _text(given)
    if declared.type == "choice" and text not in declared.options:
        raise _WrongValueError(f"must be one of {', '.join(declared.options)}; is {text[:64]!r}")
    return text


def _boolean(given: object) -> bool:
    if isinstance(given, bool):
        return given
    if given in ("true", "false"):
        return given == "true"
    raise _WrongValueError(f"must be true or false, is {str(given)[:64]!r}")


def _integer(given: object) -> int:
    try:
        if isinstance(given, (int, str)) and not isinstance(given, bool) and len(str(given)) < 20:
            number = int(given)
            if abs(number) < 2**63:
                return number
    except ValueError:
        pass
    raise _WrongValueError(f"must be a whole number of 64 bits, is {str(given)[:64]!r}")


def _number(given: object) -> float:
    try:
        if isinstance(given, (int, float, str)) and not isinstance(given, bool):
            number = float(given)
            if math.isfinite(number):
                return number
    except (ValueError, OverflowError):
        pass
    raise _WrongValueError(f"must be a number, is {str(given)[:64]!r}")


def _text(given: object) -> str:
    text = given if isinstance(given, str) else str(given)
    if len(text) > VALUE_LIMIT:
        raise _WrongValueError(f"must have at most {VALUE_LIMIT} characters, has {len(text)}")
    if "\0" in text:
        raise _WrongValueError("must not contain NUL")
    return text


def variables_of(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables in which jobs find the inputs: `MUSTER_INPUT_` and the name."""
    return {f"MUSTER_INPUT_{name.upper()}": _shell(value) for name, value in inputs.items()}


def _shell(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
