import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.definition.selector import KEY, SelectorSyntaxError, parse_selector
from server.domain.requirement import Operator, Requirement

KEYS = st.from_regex(KEY, fullmatch=True)
VALUES = st.text("abcXYZ0189._/-", min_size=1)
INTEGERS = st.integers(-1000, 1000).map(str)


def requirements():
    in_or_not = st.sampled_from([Operator.IN, Operator.NOT_IN])
    several = st.lists(VALUES, min_size=1, max_size=4).map(tuple)
    presence = st.sampled_from([Operator.EXISTS, Operator.NOT_EXISTS])
    size = st.sampled_from([Operator.GT, Operator.LT])
    return st.one_of(
        st.builds(Requirement, KEYS, in_or_not, several),
        st.builds(Requirement, KEYS, presence),
        st.builds(Requirement, KEYS, size, INTEGERS.map(lambda value: (value,))),
    )


def written(requirement, space=" "):
    """Return a requirement as people write it."""
    key, values = requirement.key, ("," + space).join(requirement.values)
    match requirement.operator:
        case Operator.IN | Operator.NOT_IN:
            word = "in" if requirement.operator is Operator.IN else "notin"
            return f"{key} {word} ({values})"
        case Operator.NOT_EXISTS:
            return f"!{space}{key}"
        case Operator.EXISTS:
            return key
        case _:
            return f"{key}{space}{requirement.operator.value}{space}{values}"


@given(st.lists(requirements(), min_size=1, max_size=5), st.sampled_from(["", " ", "  "]))
def test_what_is_written_is_what_is_read(wanted, space):
    assert parse_selector(f"{space},".join(written(one, space) for one in wanted)) == wanted


def complaint(text):
    """Return the error about a text, or None."""
    try:
        parse_selector(text)
    except SelectorSyntaxError as error:
        return error


@given(st.text("ab1 !=<>(),.-²", max_size=20))
def test_any_text_is_read_or_refused_at_a_place_in_it(text):
    error = complaint(text)
    if error:
        assert 0 <= error.position <= len(text)
        assert str(error).splitlines()[-1] == " " * (error.position + 2) + "^"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("zone=a", [Requirement("zone", Operator.IN, ("a",))]),
        ("zone==a", [Requirement("zone", Operator.IN, ("a",))]),
        ("zone=", [Requirement("zone", Operator.IN, ("",))]),
        ("zone!=a", [Requirement("zone", Operator.NOT_IN, ("a",))]),
        ("in in (in)", [Requirement("in", Operator.IN, ("in",))]),
        ("!gpu", [Requirement("gpu", Operator.NOT_EXISTS)]),
        (
            "cpus>3,gpu",
            [Requirement("cpus", Operator.GT, ("3",)), Requirement("gpu", Operator.EXISTS)],
        ),
    ],
)
def test_short_forms_mean_the_long_ones(text, wanted):
    assert parse_selector(text) == wanted


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", 0),
        ("zone in (a,b", 12),
        ("zone in a", 8),
        ("zone within (a)", 5),
        ("cpus>many", 5),
        ("zone=a,", 7),
        ("zone=a b", 7),
        ("=a", 0),
        ("-zone", 0),
    ],
)
def test_an_error_points_at_the_place(text, place):
    with pytest.raises(SelectorSyntaxError) as error:
        parse_selector(text)
    assert error.value.position == place
