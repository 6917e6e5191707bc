"""`python -m bench` as a person calls it."""

from click.testing import CliRunner

from bench.__main__ import main
from bench.family import families, known_figures


def test_an_unknown_figure_ends_the_command_before_anything_is_measured():
    result = CliRunner().invoke(main, ["noop_tasks_per_hour"])
    assert result.exit_code == 1
    assert result.stdout == ""
    for name in known_figures(families()):
        assert name in result.stderr
