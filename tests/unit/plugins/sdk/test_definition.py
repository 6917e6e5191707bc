"""A plugin's parameters are its function's, and what that returns is its result."""

from typing import Literal, Optional

import pytest
from jsonschema import Draft202012Validator

from plugins.sdk import Context, Plugin, Result, plugin


def test_the_schema_is_what_the_annotations_say():
    def do(
        context: Context,
        text: str,
        many: list[int],
        table: dict[str, float],
        word: Literal["a", "b"] = "a",
        truth: bool = False,
        maybe: str | None = None,
        perhaps: Optional[int] = None,  # noqa: UP045 - both ways of saying it
        from_: str = "",
    ) -> None: ...

    schema = plugin(do).parameters
    Draft202012Validator.check_schema(schema)
    assert schema == {
        "type": "object",
        "additionalProperties": False,
        "required": ["text", "many", "table"],
        "properties": {
            "text": {"type": "string"},
            "many": {"type": "array", "items": {"type": "integer"}},
            "table": {"type": "object", "additionalProperties": {"type": "number"}},
            "word": {"enum": ["a", "b"]},
            "truth": {"type": "boolean"},
            "maybe": {"type": "string"},
            "perhaps": {"type": "integer"},
            "from": {"type": "string"},
        },
    }


def test_what_json_has_no_type_for_is_an_error_that_names_it():
    def no_context(): ...

    def bare(context, name): ...

    def odd(context: Context, when: complex): ...

    def pair(context: Context, either: int | str): ...

    for function, words in [
        (no_context, "no_context needs a first parameter"),
        (bare, "the parameter name of bare has no annotation"),
        (odd, "the parameter when is"),
        (pair, "the parameter either is"),
    ]:
        with pytest.raises(TypeError, match=words):
            plugin(function)


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        (None, Result()),
        (4, Result(4)),
        ({"a": 1}, Result(outputs={"a": "1"})),
        (Result(2, "why"), Result(2, "why")),
    ],
)
def test_what_it_returns_is_its_result(returned, result):
    assert Plugin(lambda context: returned, {}).call(None, {}) == result


@pytest.mark.parametrize("returned", [True, False, "text", [1]])
def test_what_is_no_result_is_an_error(returned):
    with pytest.raises(TypeError, match="returned"):
        Plugin(lambda context: returned, {}).call(None, {})


def test_a_parameter_may_have_a_name_that_python_keeps_for_itself():
    def send(context: Context, from_: str) -> dict[str, str]:
        return {"seen": from_}

    assert plugin(send).call(None, {"from": "here"}) == Result(outputs={"seen": "here"})
