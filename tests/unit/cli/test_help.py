import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli.root import COMMANDS, root

ROOT = Path(sys.modules["cli.root"].__file__).parents[1]


def leaves(group, path=()):
    """Return every command with the words that lead to it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield (*path, name), command


LEAVES = dict(leaves(root))


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_every_command_explains_itself_with_an_example(muster, path):
    done = muster(*path, "--help")
    assert done.code == 0
    assert LEAVES[path].help
    assert f"  muster {' '.join(path)}" in done.out.partition("Examples:")[2]


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_the_shared_options_are_known_after_every_command(muster, path):
    done = muster(*path, "--help")
    for option in ("--output", "--server", "--namespace", "--debug"):
        assert option in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_list_of_commands_names_what_there_is(name):
    assert root.get_command(click.Context(root), name).name == name


def test_help_imports_nothing_slow():
    program = "import sys; from cli.__main__ import run; run(['--help']); print(*sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "click" in loaded
    assert not {"grpc", "google.protobuf", "rich", "ruamel.yaml", "asyncio"} & loaded


@pytest.mark.parametrize("arguments", [("bogus",), ("task", "bogus"), ("ping", "--bogus"), ()])
def test_wrong_usage_exits_2(muster, arguments):
    assert muster(*arguments).code == 2


@pytest.mark.parametrize("arguments", [("--version",), ("version",)])
def test_the_version_is_told(muster, arguments):
    assert muster(*arguments).out.startswith("muster 0.")
