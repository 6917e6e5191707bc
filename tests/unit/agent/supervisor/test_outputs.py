"""Values that a task tells later jobs."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.supervisor.masking import Mask
from agent.supervisor.outputs import LARGEST, NAME, parse, read_outputs, sound


@pytest.mark.parametrize(
    ("text", "values", "wrong"),
    [
        ("", {}, ""),
        ("a=1\nb=x=y\n\n", {"a": "1", "b": "x=y"}, ""),
        ("a=1\na=2", {"a": "2"}, ""),
        ("a<<END\none\n\ntwo\nEND\nb=1\n", {"a": "one\n\ntwo", "b": "1"}, ""),
        ("nonsense\nb=1", {"b": "1"}, "line 1 is neither NAME=VALUE"),
        ("1a=1\nb=1", {"b": "1"}, "line 1 is neither"),
        ("b=1\na<<END\none\n", {"b": "1"}, "line 2: no later line is 'END' alone"),
        ("a<<\nb=1", {}, "line 1: no later line"),
        ("a<<END\nx=1", {}, "line 1: no later line is 'END' alone"),
        ("".join(f"a{n}=\n" for n in range(1001)), {}, "has 1001 values; at most 1000"),
    ],
)
def test_lines_are_values(text, values, wrong):
    found, told = parse(text)
    assert found == values
    assert wrong in told
    assert bool(wrong) is bool(told)


NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_-]{0,20}", fullmatch=True)


@given(st.dictionaries(NAMES, st.text(st.characters(exclude_characters="\0", codec="utf-8"))))
def test_any_value_comes_through(values):
    text = "".join(f"{name}<<-mark-\n{value}\n-mark-\n" for name, value in values.items())
    assert parse(text) == (values, "")


def test_no_file_takes_long():
    begun = time.process_time()
    assert parse("a<<b\n" * 13_000)[1]
    assert parse("a<<b\nx\nb\n" * 6_000)[1] == ""
    assert time.process_time() - begun < 0.2


def test_what_a_task_may_have_written_itself_is_looked_at():
    told = {"a": "1", "b": "\ud800", "c d": "2", "e": 3, "f\n": "4", "": "5"}
    assert sound(told) == {"a": "1"}
    assert sound(["a"]) == {}
    assert sound({f"a{n}": "" for n in range(1001)}) == {}


@given(st.text())
def test_no_text_trips_the_reader(text):
    values, _ = parse(text)
    assert all("\0" not in value for value in values.values())


def test_secrets_are_masked(tmp_path):
    (tmp_path / NAME).write_text("a=tell-nobody\nb=1\n")
    assert read_outputs(str(tmp_path), Mask(["tell-nobody"])) == ({"a": "***", "b": "1"}, "")


def test_what_is_no_plain_file_of_the_task_is_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("a=1\n")
    file = tmp_path / NAME
    file.symlink_to(secret)
    assert "cannot be read" in read_outputs(str(tmp_path), Mask([]))[1]
    file.unlink()
    os.link(secret, file)
    assert "no plain file" in read_outputs(str(tmp_path), Mask([]))[1]
    file.unlink()
    os.mkfifo(file)
    assert "no plain file" in read_outputs(str(tmp_path), Mask([]))[1]
    file.unlink()
    file.mkdir()
    assert "no plain file" in read_outputs(str(tmp_path), Mask([]))[1]
    file.rmdir()
    assert read_outputs(str(tmp_path), Mask([])) == ({}, "")


def test_a_file_that_is_too_large_is_not_taken(tmp_path):
    (tmp_path / NAME).write_bytes(b"a=1\n" * LARGEST)
    values, wrong = read_outputs(str(tmp_path), Mask([]))
    assert values == {}
    assert "larger than 64 KiB" in wrong
