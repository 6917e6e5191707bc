"""From a function to a plugin: its parameters' JSON Schema comes from their annotations."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from plugins.sdk.context import Context

_SCALARS: dict[object, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


@dataclass(frozen=True)
class Result:
    """How a plugin ended.

    Attributes:
        exit_code: 0 when it did what it was asked.
        message: A sentence for people, or empty.
        outputs: Values that it tells later jobs.
    """

    exit_code: int = 0
    message: str = ""
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plugin:
    """A function that is a plugin."""

    function: Callable[..., object]
    parameters: Mapping[str, Any]
    """JSON Schema (2020-12) of an object."""

    def call(self, context: Context, parameters: Mapping[str, Any]) -> Result:
        """Does it. A number that it returns is the exit code, a dictionary are outputs.

        Raises:
            TypeError: It returns something else.
        """
        returned = self.function(context, **{_name(key): v for key, v in parameters.items()})
        if isinstance(returned, Result):
            return returned
        if isinstance(returned, Mapping):
            return Result(outputs={str(name): str(value) for name, value in returned.items()})
        if returned is None:
            return Result()
        if isinstance(returned, int) and not isinstance(returned, bool):
            return Result(returned)
        raise TypeError(
            f"{self.function.__name__} returned {type(returned).__name__}; it should be nothing, "
            "an exit code, a dictionary of outputs or a Result"
        )


def plugin(function: Callable[..., object]) -> Plugin:
    """Make a plugin of a function: the first parameter is the context, the others its own.

    Raises:
        TypeError: A parameter has no annotation, or one that JSON has no type for.
    """
    hints = typing.get_type_hints(function)
    found = list(inspect.signature(function).parameters.values())
    if not found:
        raise TypeError(f"{function.__name__} needs a first parameter: the context")
    properties: dict[str, Any] = {}
    required = []
    for each in found[1:]:
        if each.name not in hints:
            raise TypeError(f"the parameter {each.name} of {function.__name__} has no annotation")
        name = each.name.rstrip("_")
        properties[name] = _schema(each.name, hints[each.name])
        if each.default is inspect.Parameter.empty:
            required.append(name)
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }
    if required:
        schema["required"] = required
    return Plugin(function, schema)


def _name(key: str) -> str:
    import keyword

    return f"{key}_" if keyword.iskeyword(key) else key


def _schema(name: str, hint: object) -> dict[str, Any]:
    if scalar := _SCALARS.get(hint):
        return {"type": scalar}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is list and len(arguments) == 1:
        return {"type": "array", "items": _schema(name, arguments[0])}
    if origin is dict and len(arguments) == 2 and arguments[0] is str:
        return {"type": "object", "additionalProperties": _schema(name, arguments[1])}
    if origin in (typing.Union, types.UnionType):
        kinds = [each for each in arguments if each is not type(None)]
        if len(kinds) == 1:
            return _schema(name, kinds[0])
    raise TypeError(
        f"the parameter {name} is {hint}; it should be text, a number, a truth, a list or a "
        "dictionary of these, or a Literal"
    )
