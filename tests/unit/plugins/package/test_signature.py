import base64
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.package.refusal import PackageRefused
from plugins.package.signature import new_key, parse_public_key, parse_secret_key, verify

CONTENT = b"a package\n"

# What Debian's minisign 0.11 made of CONTENT, with a key that was thrown away.
MINISIGN_KEY = """\
untrusted comment: minisign public key 3DC4625174AFE961
RWRh6a90UWLEPW6ZLsaoyt8r1sCpOBXgxJ2sEmnCobitAsbB0ULw5kNX
"""
MINISIGN_SIGNATURE = """\
untrusted comment: signature from minisign secret key
RURh6a90UWLEPYhCLyl9uj1Q3kAl5EYrPCxqB4gdl/CYADgxJeXO3pW+X28S7OJtxrd1o0Lmh3ItugO9mI+tTzGsDGDNCDD6wQc=
trusted comment: made by minisign
/V3gzTQqWEzBfZgmp9X4nIe9mLzeGxpwGF2zbpdJVG9LxzIZugZ7mxVFuQTruBaBaFSRZAFOtAcJH5ojTCzdDA==
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signature")
    (folder / "package").write_bytes(CONTENT)
    (folder / "other").write_bytes(CONTENT + b"x")
    return folder


def check(path, signature, *keys):
    with path.open("rb") as file:
        return verify(file, signature, keys)


def sign(path, key, comment="of a test"):
    with path.open("rb") as file:
        return key.sign(file, comment)


def test_what_minisign_signed_is_verified(folder):
    key = parse_public_key(MINISIGN_KEY)

    assert check(folder / "package", MINISIGN_SIGNATURE, key) == (key, "made by minisign")
    assert key.name in MINISIGN_KEY


def test_what_is_signed_here_is_verified_by_the_right_key_alone(folder):
    key, other = new_key(), new_key()
    signature = sign(folder / "package", key)

    assert check(folder / "package", signature, other.public(), key.public()) == (
        key.public(),
        "of a test",
    )
    with pytest.raises(PackageRefused, match="not trusted here"):
        check(folder / "package", signature, other.public())
    with pytest.raises(PackageRefused, match="not trusted here"):
        check(folder / "package", signature)


def test_key_with_the_id_of_another_does_not_pass_for_it(folder):
    key = new_key()
    false = type(key)(key.id, new_key().seed)

    with pytest.raises(PackageRefused, match="not of this file"):
        check(folder / "package", sign(folder / "package", false), key.public())


def test_other_file_and_other_comment_are_refused(folder):
    key = new_key()
    signature = sign(folder / "package", key)

    with pytest.raises(PackageRefused, match="not of this file"):
        check(folder / "other", signature, key.public())
    with pytest.raises(PackageRefused, match="not of this file"):
        check(folder / "package", signature.replace("of a test", "of a toast"), key.public())


@given(position=st.integers(0, 73), change=st.integers(1, 255))
def test_every_byte_of_a_signature_counts(folder, position, change):
    key = new_key()
    lines = sign(folder / "package", key).splitlines()
    data = bytearray(base64.b64decode(lines[1]))
    data[position] ^= change
    lines[1] = base64.b64encode(data).decode()

    with pytest.raises(PackageRefused):
        check(folder / "package", "\n".join(lines), key.public())


@given(st.text())
def test_any_text_is_a_key_or_signature_or_refused(folder, text):
    for parse in (parse_public_key, parse_secret_key):
        with pytest.raises(PackageRefused):
            parse(text)
    with pytest.raises(PackageRefused):
        check(folder / "package", text, parse_public_key(MINISIGN_KEY))


def test_keys_are_read_back_and_do_not_show_themselves():
    key = new_key()

    assert parse_secret_key(key.text()) == key
    assert parse_public_key(key.public().text()) == key.public()
    assert parse_public_key(key.public().text().splitlines()[1]) == key.public()
    assert repr(key.seed) not in repr(key)


def test_key_with_a_password_is_for_minisign_itself():
    data = bytearray(base64.b64decode(new_key().text().splitlines()[1]))
    data[2:4] = b"Sc"

    with pytest.raises(PackageRefused, match="has a password; sign with it by"):
        parse_secret_key(f"untrusted comment: x\n{base64.b64encode(data).decode()}\n")


def test_damaged_secret_key_is_refused():
    data = bytearray(base64.b64decode(new_key().text().splitlines()[1]))
    data[60] ^= 1

    with pytest.raises(PackageRefused, match="damaged"):
        parse_secret_key(f"untrusted comment: x\n{base64.b64encode(data).decode()}\n")


def test_minisign_and_this_agree_both_ways(tmp_path):
    minisign = shutil.which("minisign")
    if minisign is None:
        pytest.skip("there is no minisign on PATH")
    key = new_key()
    (tmp_path / "package").write_bytes(CONTENT)
    (tmp_path / "key").write_text(key.text())
    (tmp_path / "key.pub").write_text(key.public().text())
    (tmp_path / "package.minisig").write_text(sign(tmp_path / "package", key))

    def run(*words):
        subprocess.run([minisign, *words], cwd=tmp_path, check=True, timeout=30)  # noqa: S603

    run("-V", "-m", "package", "-p", "key.pub")
    run("-S", "-m", "package", "-s", "key", "-t", "by minisign")
    signature = (tmp_path / "package.minisig").read_text()
    assert check(tmp_path / "package", signature, key.public()) == (key.public(), "by minisign")
