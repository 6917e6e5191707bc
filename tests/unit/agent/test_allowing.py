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
    named = agent_pb2.PluginInfo(
        plugin_id="git-checkout", version="1.0.0", reference="git-checkout"
    )
    return task(steps=[agent_pb2.Step(uses="git-checkout", settings=settings)], plugins=[named])


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
        (task(steps=[agent_pb2.Step(uses="git-checkout@1.0", settings="{")]), "commands"),
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


@pytest.mark.parametrize(
    "name",
    [
        *("BASH_ENV", "ENV", "BASH_FUNC_make%%", "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "SHELL"),
        *(
            "MAKEFLAGS",
            "MAKEFILES",
            "GNUMAKEFLAGS",
            "CC",
            "CFLAGS",
            "GIT_SSH_COMMAND",
            "GIT_EXEC_PATH",
        ),
        *("PYTHONPATH", "PYTHONSTARTUP", "PERL5OPT", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "HOME"),
        *("DOCKER_HOST", "RUBYOPT", "PAGER", "https_proxy", "SSH_ASKPASS"),
    ],
)
@pytest.mark.parametrize("where", ["env", "secrets"])
def test_a_variable_that_makes_a_program_run_something_else_is_refused(lists, name, where):
    refusal = lists.refusal(task("make all", **{where: {name: "x"}}))
    assert f"the variable {name!r}" in refusal


@pytest.mark.parametrize("name", ["VERSION", "GIT_TOKEN", "GIT_AUTHOR_NAME", "MUSTER_TOKEN", "Q"])
def test_other_variables_are_allowed_without_a_list(lists, name):
    assert lists.refusal(task("make all", env={name: "x"}, secrets={name: "x"})) == ""


def test_with_a_list_of_variables_only_those_are_allowed(tmp_path):
    (tmp_path / "allow.toml").write_text('variables = ["VERSION", "T_*", "PATH"]')
    lists = read(tmp_path / "allow.toml")
    assert lists.refusal(task("x", env={"VERSION": "1", "T_1": "", "PATH": "/bin"})) == ""
    assert lists.refusal(task("x", secrets={"MUSTER_TOKEN": "key"})) == ""
    assert "'OTHER' is not in its variables" in lists.refusal(task("x", env={"OTHER": "1"}))
    assert "'S' is not in its variables" in lists.refusal(task("x", secrets={"S": "1"}))


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"commands": ["make x", "rm y"]}, "commands"),
        ({"uses": "other@1.0.0"}, "plugins"),
        ({"uses": "git-checkout"}, "plugins"),
        ({"uses": "git-checkout@1.0.0", "settings": '{"repository": "https://evil/x"}'},
         "repositories"),
        ({"uses": "git-checkout@1.0.0", "settings": '{"repository": {"from_env": "X"}}'},
         "repositories"),
        ({"uses": "git-checkout@1.0.0", "settings": '{"image": "elsewhere/x"}'}, "images"),
        ({"uses": "git-checkout@1.0.0", "settings": '{"commands": ["make x\\nrm y"]}'}, "commands"),
        ({"uses": "git-checkout@1.0.0", "settings": "[" * 100_000}, "commands"),
    ],
)  # fmt: skip
def test_what_steps_do_must_be_in_the_lists(lists, step, why):
    assert f"is not in its {why}" in lists.refusal(task(steps=[agent_pb2.Step(**step)]))


def test_settings_that_cannot_be_read_check_nothing_out(tmp_path):
    (tmp_path / "allow.toml").write_text('repositories = ["*.internal/*"]')
    steps = [agent_pb2.Step(uses="git-checkout@1", settings="{")]
    assert "is not in its repositories" in read(tmp_path / "allow.toml").refusal(task(steps=steps))


def test_a_repository_is_looked_at_where_it_is_checked_out_alone(lists):
    named = agent_pb2.PluginInfo(plugin_id="git-checkout", version="1.0.0", reference="status")
    steps = [agent_pb2.Step(uses="status", settings='{"repository": "team/app"}')]
    assert lists.refusal(task(steps=steps, plugins=[named])) == ""


def test_steps_that_are_in_the_lists_are_run(lists):
    settings = '{"repository": "https://git.internal/team/app"}'
    plugin = agent_pb2.PluginInfo(
        plugin_id="git-checkout", version="1.2.0", reference="git-checkout@1"
    )
    steps = [
        agent_pb2.Step(uses="git-checkout@1", settings=settings),
        agent_pb2.Step(commands=["make all"]),
    ]
    assert lists.refusal(task(steps=steps, plugins=[plugin])) == ""


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
