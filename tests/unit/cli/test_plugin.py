import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.processes import eventually

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


def own_script(muster, here, text, properties=""):
    """Make a plugin of a script, and of its parameters' properties."""
    muster("plugin", "init", "own")
    (here / "own" / "main.sh").write_text(f"#!/bin/sh\n{text}\n")
    manifest = (here / "own" / "plugin.toml").read_text()
    head = manifest.partition("[parameters]")[0]
    (here / "own" / "plugin.toml").write_text(
        f'{head}[parameters]\ntype = "object"\n[parameters.properties]\n{properties}\n'
    )


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ('mkfifo "$MUSTER_OUTPUT"', ""),
        ('mkdir "$MUSTER_OUTPUT"', ""),
        ('ln -s /etc/hostname "$MUSTER_OUTPUT"', ""),
        (r"""printf 'x=\377\n' >> "$MUSTER_OUTPUT" """, "Outputs:\nx=\ufffd\n"),
    ],
)
def test_trying_takes_no_plugin_at_its_word_about_its_outputs(muster, here, script, shown):
    own_script(muster, here, script)

    done = tried(here, "own")

    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")


@pytest.mark.parametrize("text", ["1", "[" * 50_000])
def test_trying_takes_a_parameter_without_a_type(muster, here, text):
    own_script(muster, here, 'printf %.3s "$PLUGIN_X"', "x = true")

    done = tried(here, "own", f"x={text}")

    assert (done.returncode, done.stdout) == (0, text[:3])


@pytest.mark.parametrize("ends", [True, False])
def test_nothing_of_a_tried_plugin_stays_behind(muster, here, ends):
    own_script(muster, here, "sleep 600 &\necho $!" + ("" if ends else "\nexec sleep 600"))
    with subprocess.Popen(
        [sys.executable, "-m", "cli", "plugin", "try", "own"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(here)},
        stdout=subprocess.PIPE,
        text=True,
    ) as trying:
        left = int(trying.stdout.readline())
        if not ends:
            trying.terminate()
    assert trying.returncode == (0 if ends else 128 + signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{left}").exists() or is_zombie(left))
    assert {path.name for path in here.iterdir()} == {"own"}


def is_zombie(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


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
