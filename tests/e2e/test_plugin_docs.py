"""docs/writing-plugins.md, done word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-plugins.md").read_text()
VARYING = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID"),
    (r"\b[0-9a-f]{64}\b", "SHA256"),
    (r"\b[0-9A-F]{16}\b", "KEY"),
    (r"\b[0-9]+$", "SIZE"),  # another zlib packs otherwise
)


def section(title):
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def blocks(text, kind):
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def commands(text):
    """Return each command of a console block with what it prints."""
    found = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def shape(lines):
    """Return lines without what is another each time."""
    text = "\n".join(lines)
    for pattern, word in VARYING:
        text = re.sub(pattern, word, text, flags=re.MULTILINE)
    return text.splitlines()


@pytest.fixture
def here(kit, tmp_path):
    """A function that does a command in an empty folder, beside a server and an agent."""
    server = kit.start_server()
    kit.start_agent(server)

    def do(command):
        programs = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(  # noqa: S603 - what the page says
            ["/bin/sh", "-c", command],
            cwd=tmp_path,
            env={**os.environ, "PATH": programs, "MUSTER_SERVER": server.grpc},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # as a terminal shows it
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout.splitlines()

    do.folder = tmp_path
    return do


def test_from_nothing_to_a_published_signed_plugin(here):
    text = section("From nothing to a published, signed plugin")
    (pipeline,) = blocks(text, "yaml")
    (here.folder / "greets.yaml").write_text(pipeline)
    done = [
        (command, shape(here(command)), shape(told))
        for block in blocks(text, "console")
        for command, told in commands(block)
    ]
    assert len(done) >= 8
    for command, printed, told in done:
        assert printed == told, command


def test_the_plugin_in_python_and_its_test_are_fine(here):
    program, test = blocks(section("In Python"), "python")
    here("muster plugin init hello --language python")
    file = here.folder / "hello" / "main.py"
    file.write_text(program)
    (here.folder / "test_hello.py").write_text(test)
    here(f"{sys.executable} -m pytest -q -p no:cacheprovider test_hello.py")
    manifest = here.folder / "hello" / "plugin.toml"
    (parameters,) = blocks(section("In Python"), "toml")
    manifest.write_text(manifest.read_text().partition("[parameters]")[0] + parameters)
    assert here("muster plugin try hello name=Ada times=2").count("Hello, Ada.") == 2
