import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "plugins"


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


def tried(here, *words):
    """Return how `muster plugin try` ends; the plugin prints where the command does."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "cli", "plugin", "try", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("language", ["sh", "python"])
def test_new_plugin_runs(muster, here, language):
    muster("plugin", "init", "greet", "--language", language)

    done = tried(here, "greet", "name=Ada")

    assert (done.returncode, done.stdout) == (0, "Hello, Ada.\nOutputs:\ngreeted=Ada\n")
    assert muster("plugin", "pack", "greet").code == 0


def test_trying_takes_parameters_by_their_types(here):
    (here / "words").write_text("a b a\n")

    done = tried(here, str(EXAMPLES / "word-count"), "path=words", "top=1", "--workspace", ".")

    assert done.stdout == "     2 a\nOutputs:\nwords=3\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("name=",), 1, "muster: step greet: name: '' should be non-empty"),
        (("nme=Ada",), 1, "'name' is a required property"),
        (("Ada",), 2, "'Ada' is not NAME=VALUE"),
    ],
)
def test_trying_with_wrong_parameters_says_so(muster, here, words, code, said):
    muster("plugin", "init", "greet")

    done = tried(here, "greet", *words)

    assert done.returncode == code
    assert said in done.stderr


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
