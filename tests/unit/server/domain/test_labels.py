import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.labels import (
    Operator,
    Requirement,
    Selector,
    check_labels,
    check_selector,
)

KEYS = st.sampled_from(["os", "gpu", "cores", "plugin/git"])
VALUES = st.sampled_from(["linux", "darwin", "", "1", "2", "-5", "+2", "9" * 30, "²", "1.0"])
LABELS = st.dictionaries(KEYS, VALUES)
LISTS = st.lists(VALUES, min_size=1, max_size=3).map(tuple)
INTEGERS = st.integers(-3, 3).map(lambda number: (str(number),))


VALUES_OF = {
    Operator.IN: LISTS,
    Operator.NOT_IN: LISTS,
    Operator.GT: INTEGERS,
    Operator.LT: INTEGERS,
}


def requirement(key, operator):
    values = VALUES_OF.get(operator, st.just(()))
    return st.builds(Requirement, st.just(key), st.just(operator), values)


REQUIREMENTS = st.tuples(KEYS, st.sampled_from(Operator)).flatmap(lambda pair: requirement(*pair))
SELECTORS = st.builds(
    lambda labels, expressions: Selector.of(labels, *expressions),
    LABELS,
    st.lists(REQUIREMENTS, max_size=4),
)


def meets(labels, needed):
    """Judge one requirement as dispatch.md words it, by other means than the code under test."""
    present = needed.key in labels
    have = labels.get(needed.key)
    listed = any(have == value for value in needed.values)
    if needed.operator in (Operator.GT, Operator.LT):
        if not present or not have.isascii() or not have.lstrip("+-").isdigit():
            return False
        difference = int(have) - int(needed.values[0])
        fits = abs(int(have)) < 2**63
        return fits and (difference > 0 if needed.operator is Operator.GT else difference < 0)
    return {
        Operator.IN: present and listed,
        Operator.NOT_IN: not present or not listed,
        Operator.EXISTS: present,
        Operator.NOT_EXISTS: not present,
    }[needed.operator]


@given(SELECTORS, LABELS)
def test_a_selector_matches_when_every_part_does(selector, labels):
    expected = all(pair in labels.items() for pair in selector.match_labels) and all(
        meets(labels, needed) for needed in selector.expressions
    )
    assert selector.matches(labels) is expected
    assert (selector.first_miss(labels) is None) is expected


@given(SELECTORS, LABELS)
def test_labels_that_no_part_names_change_nothing(selector, labels):
    named = {key: labels[key] for key in selector.keys() & labels.keys()}
    assert selector.matches(labels) is selector.matches(named)


@given(SELECTORS, st.randoms(use_true_random=False), LABELS)
def test_order_and_repeats_do_not_change_the_canonical_form(selector, random, labels):
    expressions = [
        Requirement(e.key, e.operator, (*random.sample(e.values, len(e.values)), *e.values[:1]))
        if e.operator in (Operator.IN, Operator.NOT_IN)
        else e
        for e in [*selector.expressions, *selector.expressions[:1]]
    ]
    random.shuffle(expressions)
    pairs = list(selector.match_labels)
    random.shuffle(pairs)
    other = Selector.of(dict(pairs), *expressions)
    assert other.canonical() == selector.canonical()
    assert other.matches(labels) is selector.matches(labels)


@given(SELECTORS, LABELS)
def test_the_canonical_form_comes_back_as_the_same_selector(selector, labels):
    again = Selector.from_canonical(selector.canonical())
    assert again.canonical() == selector.canonical()
    assert again.matches(labels) is selector.matches(labels)
    assert again.keys() == selector.keys()
    assert json.loads(selector.canonical())


@given(SELECTORS)
def test_a_well_formed_selector_is_accepted(selector):
    assert check_selector(selector, "label_selector") == []


IN_USE = Requirement("environment", Operator.IN, ("production", "qa"))


# The resources of Kubernetes' page "Labels and Selectors", with the answers it gives.
@pytest.mark.parametrize(
    ("needed", "labels", "expected"),
    [
        # "environment in (production, qa)" selects resources with one of these values.
        (IN_USE, {"environment": "qa"}, True),
        (IN_USE, {"environment": "dev"}, False),
        (IN_USE, {}, False),
        # "tier notin (frontend, backend)": other values, and resources without the key.
        (Requirement("tier", Operator.NOT_IN, ("frontend", "backend")), {"tier": "cache"}, True),
        (Requirement("tier", Operator.NOT_IN, ("frontend", "backend")), {"tier": "backend"}, False),
        (Requirement("tier", Operator.NOT_IN, ("frontend", "backend")), {}, True),
        # "partition" and "!partition": the key with any value, and its absence.
        (Requirement("partition", Operator.EXISTS), {"partition": ""}, True),
        (Requirement("partition", Operator.EXISTS), {"environment": "qa"}, False),
        (Requirement("partition", Operator.NOT_EXISTS), {"environment": "qa"}, True),
        (Requirement("partition", Operator.NOT_EXISTS), {"partition": "x"}, False),
        # Gt and Lt of node affinity: integers, and the label has to be there.
        (Requirement("cores", Operator.GT, ("4",)), {"cores": "8"}, True),
        (Requirement("cores", Operator.GT, ("8",)), {"cores": "8"}, False),
        (Requirement("cores", Operator.GT, ("4",)), {"cores": "eight"}, False),
        (Requirement("cores", Operator.GT, ("4",)), {}, False),
        (Requirement("cores", Operator.LT, ("10",)), {"cores": "9"}, True),
        (Requirement("cores", Operator.LT, ("10",)), {}, False),
    ],
)  # fmt: skip
def test_kubernetes_examples_have_kubernetes_answers(needed, labels, expected):
    assert Selector(expressions=(needed,)).matches(labels) is expected


def test_every_part_has_to_match():
    selector = Selector.of(
        {"component": "redis"},
        Requirement("tier", Operator.IN, ("cache",)),
        Requirement("environment", Operator.NOT_IN, ("dev",)),
    )
    assert selector.matches({"component": "redis", "tier": "cache"})
    assert not selector.matches({"component": "redis", "tier": "cache", "environment": "dev"})
    assert not selector.matches({"tier": "cache"})


def test_an_empty_selector_fits_every_agent():
    assert Selector().matches({})
    assert Selector().describe() == "any agent"


def test_a_selector_reads_as_people_write_it():
    selector = Selector.of(
        {"os": "linux"},
        Requirement("gpu", Operator.EXISTS),
        Requirement("arch", Operator.NOT_IN, ("arm64", "riscv64")),
        Requirement("cores", Operator.GT, ("4",)),
    )
    assert selector.describe() == "os=linux, gpu exists, arch not in (arm64, riscv64), cores > 4"


def test_the_first_miss_tells_what_is_needed_and_what_is_there():
    selector = Selector.of({"os": "linux"}, Requirement("gpu", Operator.EXISTS))
    assert selector.first_miss({"os": "darwin"}) == "It needs os=linux, and os is 'darwin'."
    assert selector.first_miss({"os": "linux"}) == "It needs gpu exists, and there is no label gpu."
    assert selector.first_miss({"os": "linux", "gpu": ""}) is None


@pytest.mark.parametrize(
    ("bad", "fields"),
    [
        (Requirement("os", None), ["operator"]),
        (Requirement("os", Operator.IN), ["values"]),
        (Requirement("os", Operator.NOT_IN), ["values"]),
        (Requirement("os", Operator.EXISTS, ("x",)), ["values"]),
        (Requirement("os", Operator.NOT_EXISTS, ("x",)), ["values"]),
        (Requirement("os", Operator.GT), ["values"]),
        (Requirement("os", Operator.GT, ("1", "2")), ["values"]),
        (Requirement("os", Operator.LT, ("1.5",)), ["values"]),
        (Requirement("os", Operator.LT, (str(2**63),)), ["values"]),
        (Requirement("os", Operator.GT, ("9" * 5000,)), ["values", "values[0]"]),
        (Requirement("os", Operator.IN, ("fine", "a\0b")), ["values[1]"]),
        (Requirement("-os", Operator.EXISTS), ["key"]),
        (Requirement("", None, ("\n",)), ["key", "operator", "values[0]"]),
    ],
)
def test_a_malformed_requirement_is_refused_with_its_path(bad, fields):
    selector = Selector.of({}, Requirement("fine", Operator.EXISTS), bad)
    found = [violation.field for violation in check_selector(selector, "label_selector")]
    assert found == [f"label_selector.match_expressions[1].{field}" for field in fields]


@pytest.mark.parametrize(
    "key",
    ["os", "a", "9", "A.b_c-d", "x" * 63, "plugin/git-checkout", "example.com/" + "x" * 63],
)
def test_kubernetes_keys_are_accepted(key):
    assert check_labels({key: "value"}, "labels") == []


@pytest.mark.parametrize(
    "key",
    ["", "-a", "a-", "a b", "x" * 64, "/a", "a/", "a/b/c", "Up/a", "é", "a\n", "d" * 254 + "/a"],
)
def test_other_keys_are_refused_by_name(key):
    (violation,) = check_labels({key: "value"}, "labels")
    assert violation.field == f"labels[{key}]"


@pytest.mark.parametrize("value", ["", "with spaces", "ü", "1.2.3+build", "x" * 256])
def test_values_are_freer_than_keys(value):
    assert check_labels({"key": value}, "labels") == []


@pytest.mark.parametrize("value", ["x" * 257, "a\nb", "\0", "\x7f", "\x85", "\ud800"])
def test_long_values_and_control_characters_are_refused(value):
    (violation,) = check_labels({"key": value}, "labels")
    assert violation.field == "labels[key]"


def test_a_malformed_match_label_is_refused_with_its_path():
    selector = Selector.of({"-bad": "x"})
    (violation,) = check_selector(selector, "label_selector")
    assert violation.field == "label_selector.match_labels[-bad]"
