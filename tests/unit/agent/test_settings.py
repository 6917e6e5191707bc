"""Flags go over the environment, and mistakes are told."""

import pytest
from click.testing import CliRunner

from agent import app
from agent.__main__ import main


@pytest.fixture
def given(monkeypatch):
    """Collects the settings an agent would run with."""
    found = []
    monkeypatch.setattr(app, "run", lambda settings: found.append(settings) or 0)
    return found


def invoke(*flags, **environment):
    return CliRunner().invoke(main, flags, env=environment, catch_exceptions=False)


def test_flags_go_over_the_environment_and_both_over_defaults(given, tmp_path):
    result = invoke(
        *("--slots", "3", "--labels", "a=1, b=x=y", "--data-dir", str(tmp_path)),
        MUSTER_AGENT_SLOTS="9",
        MUSTER_AGENT_NAMESPACE="team",
    )
    assert result.exit_code == 0
    (settings,) = given
    assert (settings.slots, settings.namespace) == (3, "team")
    assert settings.server == "127.0.0.1:50051"
    assert settings.labels == {"a": "1", "b": "x=y"}
    assert settings.drain_limit.total_seconds() == 60


@pytest.mark.parametrize(
    "flags",
    [
        ("--server", "nohost"),
        ("--server", "host:99999"),
        ("--labels", "novalue"),
        ("--slots", "0"),
        ("--drain-limit", "-1"),
        ("--log-levels", "agent.board"),
        ("--log-levels", "agent.board=loud"),
        ("--name", "x" * 129),
        ("--bogus",),
    ],
)
def test_a_wrong_flag_is_a_usage_error(given, flags):
    result = invoke(*flags)
    assert result.exit_code == 2
    assert "Error" in result.output
    assert given == []


def test_a_misspelt_variable_is_told_and_nothing_more(given):
    result = invoke(MUSTER_AGENT_SLOT="9", MUSTER_AGENT_NAME="a", MUSTER_AGENTS="x")
    assert result.exit_code == 0
    assert "no setting MUSTER_AGENT_SLOT; did you mean MUSTER_AGENT_SLOTS?" in result.output
    assert result.output.count("Warning") == 1
    assert given[0].name == "a"


def test_a_variable_like_no_other_is_told_without_a_guess(given):
    result = invoke(MUSTER_AGENT_QQQQQQQQQQQQQQQQQQ="1")
    assert result.output == "Warning: there is no setting MUSTER_AGENT_QQQQQQQQQQQQQQQQQQ\n"
