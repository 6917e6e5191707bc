"""`python -m bench` as a person calls it."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from bench.__main__ import main, measure_all
from bench.family import families, known_figures
from bench.figure import Figure
from bench.figures.rivals import need
from bench.lab import Lab, Unmeasurable


def test_an_unknown_figure_ends_the_command_before_anything_is_measured():
    result = CliRunner().invoke(main, ["noop_tasks_per_hour"])
    assert result.exit_code == 1
    assert result.stdout == ""
    for name in known_figures(families()):
        assert name in result.stderr


async def yield_both(_, __):
    yield Figure("first", 1, "s", 1)
    yield Figure("second", 2, "s", 1)


async def refuse(_, __):
    raise Unmeasurable("there is no such thing here")
    yield


async def test_only_wanted_figures_are_written(capsys, tmp_path):
    family = SimpleNamespace(FIGURES=("first", "second"), measure=yield_both)
    await measure_all(Lab(tmp_path), [(family, frozenset({"second"}))])
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["name"] for line in lines] == ["second"]


async def test_what_cannot_be_measured_here_is_left_out_with_its_reason(capsys, tmp_path):
    there = SimpleNamespace(FIGURES=("first",), measure=yield_both)
    not_there = SimpleNamespace(FIGURES=("third",), measure=refuse)
    chosen = [(not_there, frozenset({"third"})), (there, frozenset({"first"}))]
    await measure_all(Lab(tmp_path), chosen)
    told = capsys.readouterr()
    assert "left out: there is no such thing here" in told.err
    assert [json.loads(line)["name"] for line in told.out.splitlines()] == ["first"]


def test_a_missing_package_is_named_with_what_brings_it():
    with pytest.raises(Unmeasurable, match=r"^no_such_package missing; .*\[bench\]"):
        need("json", "no_such_package")
