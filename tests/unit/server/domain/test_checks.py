import pytest

from server.domain.checks import ENV_VALUE_LIMIT, Checks, has_control, printable
from server.domain.errors import Invalid


def found(name, *arguments, **options):
    checks = Checks()
    getattr(checks, name)(*arguments, **options)
    return [violation.field for violation in checks.violations]


@pytest.mark.parametrize("value", ["a", "with spaces", "ü → 字", "x" * 256])
def test_names_are_any_text_of_up_to_256_characters(value):
    assert found("name", "f", value) == []


@pytest.mark.parametrize("value", ["", "x" * 257, "a\0b", "a\nb", "\x7f", "\x85"])
def test_empty_and_long_names_and_control_characters_are_refused(value):
    assert found("name", "f", value) == ["f"]


def test_an_optional_name_may_be_empty():
    assert found("name", "f", "", required=False) == []
    assert found("name", "f", "\n", required=False) == ["f"]


@pytest.mark.parametrize(("value", "fine"), [("a\nb", True), ("x" * 9, True), ("x" * 10, False)])
def test_text_is_limited_and_may_have_lines(value, fine):
    assert (found("text", "f", value, 9) == []) is fine


def test_text_has_no_nul():
    assert found("text", "f", "a\0", 9) == ["f"]


@pytest.mark.parametrize(("value", "fine"), [(0, False), (1, True), (9, True), (10, False)])
def test_bounds_are_included(value, fine):
    assert (found("number", "f", value, 1, 9) == []) is fine


@pytest.mark.parametrize(
    ("commands", "fields"),
    [
        (["make"], []),
        (["a\nb", "# c"], []),
        ([], ["f"]),
        (["", "make", " \n", "a\0"], ["f[0]", "f[2]", "f[3]"]),
    ],
)
def test_each_bad_line_of_a_script_is_named(commands, fields):
    assert found("script", "f", commands) == fields


@pytest.mark.parametrize(
    ("env", "fields"),
    [
        ({"A": "", "_b9": "x\ny"}, []),
        ({"": "x"}, ["f[]"]),
        ({"9A": "x"}, ["f[9A]"]),
        ({"A B": "x"}, ["f[A B]"]),
        ({"A\n": "x"}, ["f[A\\n]"]),
        ({"É": "x"}, ["f[\\xc9]"]),
        ({"MUSTER_TASK_ID": "x"}, ["f[MUSTER_TASK_ID]"]),
        ({"A": "x\0"}, ["f[A]"]),
        ({"A": "x" * ENV_VALUE_LIMIT}, ["f[A]"]),
        ({"A": "ü" * (ENV_VALUE_LIMIT // 2)}, ["f[A]"]),
        ({"A": "x" * (ENV_VALUE_LIMIT - 1)}, []),
    ],
)
def test_environment_names_are_those_of_posix_and_values_fit_execve(env, fields):
    assert found("environment", "f", env) == fields


@pytest.mark.parametrize("path", ["", "a", "a/b", "./a", "..a/b..", "ü"])
def test_a_path_may_go_anywhere_below(path):
    assert found("relative_path", "f", path) == []


@pytest.mark.parametrize("path", ["/a", "..", "../a", "a/../..", "a/..", "a\n", "\0"])
def test_a_path_never_leaves_the_workspace(path):
    assert found("relative_path", "f", path) == ["f"]


def test_violations_are_raised_together():
    checks = Checks()
    checks.done()
    checks.fail("a", "is bad")
    checks.name("b", "")
    with pytest.raises(Invalid) as caught:
        checks.done()
    assert [violation.field for violation in caught.value.violations] == ["a", "b"]
    assert str(caught.value) == "a: is bad; b: must not be empty"


def test_control_characters_are_those_of_unicodes_category():
    assert all(has_control(chr(n)) for n in [*range(0x20), *range(0x7F, 0xA0)])
    assert not any(has_control(chr(n)) for n in [*range(0x20, 0x7F), *range(0xA0, 0x200)])


def test_a_path_to_anything_is_printable_and_short():
    assert printable("a\0é") == "a\\x00\\xe9"
    assert len(printable("x" * 1000)) == 64
