"""Which figures there are and how they are asked for."""

import pytest

from bench.family import UnknownFigureError, choose, families, known_figures


def test_no_name_asks_for_every_figure():
    everything = families()
    chosen = choose(everything, [])
    assert [family for family, _ in chosen] == everything
    assert sorted(name for _, wanted in chosen for name in wanted) == sorted(
        known_figures(everything)
    )


def test_a_name_asks_for_its_family_and_nothing_else():
    chosen = choose(families(), ["noop_tasks_per_second", "submit_to_start_ms_p99"])
    assert sorted(name for _, wanted in chosen for name in wanted) == [
        "noop_tasks_per_second",
        "submit_to_start_ms_p99",
    ]
    assert len(chosen) == 2


def test_every_name_belongs_to_one_figure():
    names = known_figures(families())
    assert len(names) == len(set(names))


def test_an_unknown_figure_is_refused_with_the_list_of_those_there_are():
    everything = families()
    with pytest.raises(UnknownFigureError) as refused:
        choose(everything, ["noop_tasks_per_second", "noop_tasks_per_hour"])
    told = str(refused.value)
    assert "no figure noop_tasks_per_hour" in told
    assert [line.strip() for line in told.splitlines()[1:]] == known_figures(everything)
