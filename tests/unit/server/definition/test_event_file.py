"""Events from JSON files."""

import pytest

from server.definition.event_file import NotAnEventError, read_event


def test_what_an_event_says_of_itself_is_read_again():
    event = read_event('{"kind": "push", "branch": "main", "paths": ["a"]}')
    assert (event.kind, event.branch, event.paths) == ("push", "main", ("a",))


def test_nobody_need_know_the_changed_files():
    assert read_event('{"kind": "push", "paths": null}').paths is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "not JSON"),
        ("[" * 200_000, "not JSON"),
        ("[]", "kind: must be one of push"),
        ('{"kind": "push", "brnch": ""}', "brnch: is not known"),
        ('{"kind": "push", "paths": "a"}', "paths: must be of type list"),
        ('{"ref": "refs/heads/x"}', "a delivery that starts nothing"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(text, why):
    with pytest.raises(NotAnEventError, match=why):
        read_event(text)
