"""What a host allows: patterns, and the ways around them that are closed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.allowing import AllowListError, AllowLists, read
from generated.agent.v1 import agent_pb2

RULES = """
commands = ["make *", "./deploy.sh production"]
images = ["registry.internal/*"]
plugins = ["git-checkout@1.*"]
repositories = ["https://git.internal/team/*"]
"""


@pytest.fixture(scope="module")
def lists(tmp_path_factory):
    file = tmp_path_factory.mktemp("allow") / "allow.toml"
    file.write_text(RULES)
    return read(file)


def task(*commands, **fields):
    return agent_pb2.Task(commands=commands, **fields)


def checkout(repository):
    settings = json.dumps({"repository": repository})
    return task(steps=[agent_pb2.Step(uses="git-checkout", settings=settings)])


@pytest.mark.parametrize(
    "allowed",
    [
        task("make all", "make -j4 test"),
        task("make all\n  make test\n\n"),
        task("./deploy.sh production"),
        task("make x", image="registry.internal/a/b:1"),
        task("make x", plugins=[agent_pb2.PluginInfo(plugin_id="git-checkout", version="1.2.0")]),
        task("make x", env={"MUSTER_REPO_URL": "https://git.internal/team/app"}),
        checkout("https://git.internal/team/x"),
        task(),
    ],
)
def test_what_is_in_the_lists_is_run(lists, allowed):
    assert lists.refusal(allowed) == ""


@pytest.mark.parametrize(
    ("refused", "why"),
    [
        (task("rm -rf /"), "commands"),
        (task(steps=[agent_pb2.Step(commands=["make x", "rm y"])]), "commands"),
        (checkout("https://elsewhere/x"), "repositories"),
        (checkout(["https://git.internal/team/x"]), "repositories"),
        (task(steps=[agent_pb2.Step(uses="git-checkout@1", settings="{")]), "repositories"),
        (task("make x", "rm y"), "commands"),
        (task("make x\nrm y"), "commands"),
        (task("make x; rm y"), "commands"),
        (task("make x && rm y"), "commands"),
        (task("make x | sh"), "commands"),
        (task("make $(rm y)"), "commands"),
        (task("make `rm y`"), "commands"),
        (task("make x > /etc/passwd"), "commands"),
        (task("make x & rm y"), "commands"),
        (task("make x\rrm y"), "commands"),
        (task("makex"), "commands"),
        (task("./deploy.sh production now"), "commands"),
        (task("make x", image="elsewhere/registry.internal/a"), "images"),
        (
            task("make x", plugins=[agent_pb2.PluginInfo(plugin_id="other", version="1.0.0")]),
            "plugins",
        ),
        (task("make x", env={"MUSTER_REPO_URL": "https://evil/team/app"}), "repositories"),
    ],
)
def test_what_is_in_no_list_is_refused(lists, refused, why):
    assert f"is not in its {why}" in lists.refusal(refused)


@given(st.text(), st.sampled_from(";&|<>$`()\\\"'\n\r{}?[]#~!*"), st.text())
def test_no_word_of_the_shell_gets_through_a_star(before, word, after):
    lists = AllowLists({"commands": read_rules()})
    line = f"make {before}{word}{after}"
    parts = [part.strip() for part in line.splitlines() if part.strip()]
    if any(not part.startswith("make ") or word in part for part in parts):
        assert lists.refusal(task(line))


def read_rules():
    from agent.allowing import _compiled

    return [_compiled("commands", "make *")]


def test_without_a_file_everything_is_allowed():
    assert read(None).refusal(task("rm -rf /", image="any")) == ""


def test_an_empty_list_allows_nothing(tmp_path):
    (tmp_path / "allow.toml").write_text("images = []")
    assert "images" in read(tmp_path / "allow.toml").refusal(task("x", image="any"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("commands = 1", "commands should be a list of texts"),
        ("commands = [1]", "commands should be a list of texts"),
        ("command = []", "there is no list 'command'"),
        ("commands = [", "allow.toml"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path, text, why):
    (tmp_path / "allow.toml").write_text(text)
    with pytest.raises(AllowListError, match=why):
        read(tmp_path / "allow.toml")
