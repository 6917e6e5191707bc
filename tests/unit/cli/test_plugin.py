import json
import os
import subprocess

import pytest


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_nothing_to_a_signed_package(muster, here):
    for words in (["init", "greet"], ["key", "k"], ["pack", "greet", "--sign", "k"]):
        assert muster("plugin", *words).code == 0

    done = muster("plugin", "verify", "greet-0.1.0.tar.gz", "--key", "k.pub", "-o", "json")

    assert done.code == 0
    package = json.loads(done.out)
    assert (package["id"], package["version"], package["type"]) == ("greet", "0.1.0", "step")
    assert package["comment"] == "plugin greet 0.1.0"
    assert (here / "k").stat().st_mode & 0o777 == 0o600


def test_new_plugin_runs(muster, here):
    muster("plugin", "init", "greet")

    done = subprocess.run(  # noqa: S603 - what init wrote
        [here / "greet/main.sh"],
        env={**os.environ, "PLUGIN_NAME": "Ada"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "Hello, Ada.\n"


def test_packing_twice_gives_the_same_file(muster, here):
    muster("plugin", "init", "greet")
    muster("plugin", "pack", "greet", "--target", "one")
    muster("plugin", "pack", "greet", "--target", "two")

    assert (here / "one").read_bytes() == (here / "two").read_bytes()


def test_tampered_package_is_refused(muster, here):
    muster("plugin", "init", "greet")
    muster("plugin", "key", "k")
    muster("plugin", "pack", "greet", "--sign", "k")
    (here / "greet/main.sh").write_text("#!/bin/sh\nexit 1\n")
    muster("plugin", "pack", "greet")

    done = muster("plugin", "verify", "greet-0.1.0.tar.gz", "--key", "k.pub")

    assert (done.code, done.err) == (1, "Error: signature: is not of this file\n")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("init", "../greet"), 2, "is not 1 to 63 of a-z"),
        (("init", "greet"), 1, "greet: File exists"),
        (("key", "greet/plugin.toml"), 1, "greet/plugin.toml: File exists"),
        (("pack", "nowhere"), 2, "does not exist"),
        (("pack", "greet", "--target", "nowhere/x"), 1, "No such file"),
        (("pack", "greet", "--target", "greet/x"), 1, "is inside greet"),
        (("pack", "greet", "--sign", "greet/plugin.toml"), 1, "secret key: is not a file of"),
        (("verify", "greet/plugin.toml"), 1, "archive: is damaged or no .tar.gz"),
        (("verify", "package", "--sha256", "0" * 64), 1, "archive: has the SHA-256"),
        (("verify", "package", "--key", "key.pub"), 1, "package.minisig: No such file"),
        (("verify", "package", "--signature", "package"), 2, "--signature needs a --key"),
    ],
)
def test_bad_input_is_named(muster, here, words, code, said):
    muster("plugin", "init", "greet")
    muster("plugin", "pack", "greet", "--target", "package")
    muster("plugin", "key", "key")

    done = muster("plugin", *words)

    assert done.code == code
    assert said in done.err
    assert "unexpectedly" not in done.err


def test_all_wrong_fields_are_told_at_once(muster, here):
    muster("plugin", "init", "greet")
    manifest = here / "greet/plugin.toml"
    text = manifest.read_text().replace('"step"', '"stepp"').replace('"0.1.0"', '"1"')
    manifest.write_text(text)

    done = muster("plugin", "pack", "greet")

    assert done.code == 1
    assert "plugin.toml: version: is not a SemVer version" in done.err
    assert "plugin.toml: type: is none of executor" in done.err
