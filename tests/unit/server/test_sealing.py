"""Sealed values: what opens them, and what does not."""

import base64
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.domain.kept_secret import Sealed
from server.sealing import KeyVersion, Sealer, SealingError, load_keys, parse

OLD, NEW = KeyVersion("old", b"o" * 32), KeyVersion("new", b"n" * 32)
WORDS = st.lists(st.text(), min_size=1, max_size=4)


@given(st.text(), WORDS)
def test_what_was_sealed_is_opened_with_the_same_words(value, words):
    sealer = Sealer([OLD])
    sealed = sealer.seal(value, *words)
    assert sealer.open(sealed, *words) == value
    assert not value or value.encode() not in sealed.data or len(value) < 4


@given(WORDS, WORDS)
def test_other_words_do_not_open_it(words, others):
    sealer = Sealer([OLD])
    sealed = sealer.seal("value", *words)
    if words != others:
        with pytest.raises(SealingError):
            sealer.open(sealed, *others)


@given(st.data())
def test_one_wrong_byte_does_not_open_it(data):
    sealer = Sealer([OLD])
    sealed = sealer.seal("value", "name")
    part = data.draw(st.sampled_from(["wrapped", "data"]))
    whole = bytearray(getattr(sealed, part))
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    parts = {"wrapped": sealed.wrapped, "data": sealed.data, part: bytes(whole)}
    with pytest.raises(SealingError):
        sealer.open(Sealed(sealed.kek, **parts), "name")


def test_the_same_value_never_looks_the_same():
    sealer = Sealer([OLD])
    first, second = sealer.seal("value", "name"), sealer.seal("value", "name")
    assert first.data != second.data
    assert first.wrapped != second.wrapped


def test_a_new_key_wraps_anew_and_old_ones_open_until_they_are_gone():
    before = Sealer([OLD])
    sealed = before.seal("value", "name")
    both = Sealer([NEW, OLD])
    assert both.open(sealed, "name") == "value"
    wrapped = both.rewrap(sealed.kek, sealed.wrapped, "name")
    after = Sealer([NEW])
    assert after.open(Sealed("new", wrapped, sealed.data), "name") == "value"
    with pytest.raises(SealingError, match=r"'old'.*is gone"):
        after.open(sealed, "name")


def test_a_tasks_own_secrets_come_back_in_their_namespace_alone():
    sealer = Sealer([OLD])
    text = sealer.seal_all({"TOKEN": "hunter22"}, "team")
    assert sealer.open_all(text, "team") == {"TOKEN": "hunter22"}
    with pytest.raises(SealingError):
        sealer.open_all(text, "other")
    with pytest.raises(SealingError):
        sealer.open_all("nonsense", "team")


def encoded(byte):
    return base64.b64encode(byte * 32).decode()


def test_keys_come_from_a_file_a_variable_or_systemd(tmp_path, monkeypatch):
    file = tmp_path / "keys"
    file.write_text(f"b:{encoded(b'b')}\n# before\na:{encoded(b'a')}\n")
    assert [each.name for each in load_keys(str(file), tmp_path, make=False)] == ["b", "a"]
    monkeypatch.setenv("SOME_KEYS", f"c:{encoded(b'c')},a:{encoded(b'a')}")
    assert [each.name for each in load_keys("env:SOME_KEYS", tmp_path, make=False)] == ["c", "a"]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "secret-keys").write_text(f"d:{encoded(b'd')}")
    assert [each.name for each in load_keys("", tmp_path / "x", make=False)] == ["d"]


def test_a_key_is_made_once_for_its_owner_alone(tmp_path):
    made = load_keys("", tmp_path / "data", make=True)
    assert load_keys("", tmp_path / "data", make=True) == made
    assert stat.S_IMODE((tmp_path / "data" / "secret-keys").stat().st_mode) == 0o600
    assert load_keys("", tmp_path / "other", make=False) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no line"),
        ("a", "line 1 should be VERSION:KEY"),
        ("a:c2hvcnQ=", "line 1 should be VERSION:KEY"),
        (f"a:{encoded(b'a')}\nb:not base64!", "line 2 should be"),
        (f"a:{encoded(b'a')}\na:{encoded(b'b')}", "line 2: a is there twice"),
    ],
)
def test_what_a_file_must_hold(text, why):
    with pytest.raises(ValueError, match=why):
        parse(text)


def test_a_missing_or_malformed_file_is_named(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        load_keys(str(tmp_path / "nowhere"), tmp_path, make=False)
    (tmp_path / "bad").write_bytes(b"\xff\xfe")
    with pytest.raises(OSError, match="bad"):
        load_keys(str(tmp_path / "bad"), tmp_path, make=False)
    with pytest.raises(OSError, match="NOT_SET"):
        load_keys("env:NOT_SET", tmp_path, make=False)


def test_a_fingerprint_tells_equal_data_and_needs_the_key():
    sealer = Sealer([OLD])
    assert sealer.fingerprint(b"same") == Sealer([OLD, NEW]).fingerprint(b"same")
    others = {sealer.fingerprint(b"other"), Sealer([NEW]).fingerprint(b"same")}
    assert sealer.fingerprint(b"same") not in others


@pytest.mark.parametrize("text", ["k::", "old::", "old:AA==:AA==", "old:!:!", "a:b:c:d", "old"])
def test_a_cut_or_foreign_text_is_told_as_damage(text):
    with pytest.raises(SealingError):
        Sealer([OLD]).open_all(text, "team")
