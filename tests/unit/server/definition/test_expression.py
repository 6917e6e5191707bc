"""Conditions and values in CEL."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.definition.expression import (
    DEEPEST,
    LONGEST,
    CelExpressions,
    Scope,
    asks_for_failures,
    find_faults,
    find_template_faults,
)
from server.domain.expression import ExpressionError

SCOPE = Scope(
    inputs={"level": "choice", "count": "integer"},
    needs=frozenset({"build"}),
    outputs={"build": frozenset({"version"})},
    jobs=frozenset({"build", "test"}),
    matrix=frozenset({"os"}),
)


@pytest.mark.parametrize(
    "text",
    [
        "branch == 'main'",
        "branch in ['main', 'dev'] && !event.branch.startsWith('tmp/')",
        "needs.build.result == 'success' || failure()",
        "needs['build'].outputs.version != ''",
        "inputs.count + 1 > 2",
        "size(event.paths) > 0",
        "event.message.matches('^fix')",
        "matrix.os == 'linux' ? always() : success()",
        "event.data.anything == 'x'",
        "has(inputs.level)",
        "inputs.count % 2 == 1",
    ],
)
def test_what_is_right_has_no_faults(text):
    assert find_faults(text, SCOPE, condition=True) == []


@pytest.mark.parametrize(
    ("text", "offset", "why"),
    [
        ("brnch == 'x'", 0, "nothing is called 'brnch' here; did you mean 'branch'?"),
        ("inputs.lvl == ''", 7, "inputs has no 'lvl'; did you mean 'level'?"),
        ("needs.test.result == ''", 6, "the job does not wait for 'test': put it into its `needs`"),
        ("needs.buld.result == ''", 6, "needs has no 'buld'; did you mean 'build'?"),
        ("needs.build.state == ''", 12, "a job has `result` and `outputs`, and no 'state'"),
        ("needs.build.outputs.v == ''", 20, "the job 'build' says no output 'v' in its `outputs`"),
        ("branch.x == 1", 7, "branch is a text and has no 'x'"),
        ("event.brnch == ''", 6, "event has no 'brnch'; did you mean 'branch'?"),
        ("alwys()", 0, "there is no function 'alwys'; did you mean 'always'?"),
        ("branch ==", 7, "this is not CEL from here on"),
        ("", 0, "an expression in CEL belongs here"),
        ("'x'", 0, "a condition must be true or false, and this is not"),
        ("inputs.count == 1 + 'a'", 0, "its values are of kinds that do not go together"),
        ("'%0999999999d' % 3 == ''", 0, "its values are of kinds that do not go together"),
        ("b'%0999999999d' % 3 == b''", 0, "its values are of kinds that do not go together"),
        ("false && branch.startWith('x')", 16, "did you mean 'startsWith'?"),
        ("inputs.count / 0 == 1", 0, "divide by zero"),
        ("event.paths.exists(p, p == 'x')", 12, "exists() walks over a list"),
        ("(" * 40 + "true" + ")" * 40, DEEPEST, f"nested deeper than {DEEPEST} levels"),
        ("!" * 40 + "true", DEEPEST, f"nested deeper than {DEEPEST} levels"),
        ("1" + "+1" * 400 + " > 3", 0, "this nests too deep"),
        ("a" * (LONGEST + 1), 0, f"an expression has at most {LONGEST} characters"),
    ],
)
def test_a_fault_has_its_place_and_says_what_would_be_right(text, offset, why):
    (fault,) = find_faults(text, SCOPE, condition=True)
    assert fault.offset == offset
    assert why in fault.why


@given(st.text(alphabet="abr.()'[]!&|=<>+-*/ ?:{}\n\"0189", max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_text_trips_the_check(text):
    for fault in find_faults(text, SCOPE, condition=True):
        assert 0 <= fault.offset <= len(text)


FACTS = {"branch": "main", "inputs": {"count": 3}, "needs": {}, "event": {"paths": ["a"]}}


def test_conditions_are_asked_after_a_failure_only_when_they_say_so():
    cel = CelExpressions()
    assert cel.holds("branch == 'main'", FACTS)
    assert not cel.holds("branch == 'main'", FACTS, well=False)
    assert not cel.holds("success() || true", FACTS, well=False)
    assert cel.holds("failure() && branch == 'main'", FACTS, well=False)
    assert not cel.holds("failure()", FACTS)
    assert cel.holds("always()", FACTS, well=False)
    assert asks_for_failures("always() || branch == 'x'")
    assert not asks_for_failures("branch == 'failure()'")


def test_values_are_filled_in_as_text():
    fill = CelExpressions().fill
    assert fill("v${{ inputs.count + 1 }}-${{branch}}-${{ true }}", FACTS) == "v4-main-true"
    assert fill("plain", FACTS) == "plain"
    with pytest.raises(ExpressionError, match="is not a text"):
        fill("${{ event.paths }}", FACTS)
    with pytest.raises(ExpressionError, match="no such member"):
        fill("${{ needs.build.result }}", FACTS)


def test_faults_of_values_have_their_place():
    faults = find_template_faults("a ${{ branch }} ${{ nope }} ${{ x", SCOPE)
    assert [(fault.offset, fault.why.split(";")[0]) for fault in faults] == [
        (20, "nothing is called 'nope' here"),
        (28, "this ${{ is never closed by }}"),
    ]


def test_a_condition_that_is_neither_true_nor_false_is_told():
    with pytest.raises(ExpressionError, match="neither true nor false"):
        CelExpressions().holds("branch", FACTS)


@pytest.mark.parametrize("text", ["branch.matches('(')", "branch.matches('[')", "[1][5] == 1"])
def test_whatever_the_library_raises_is_told_as_an_error_of_the_expression(text):
    with pytest.raises(ExpressionError):
        CelExpressions().holds(text, FACTS)
