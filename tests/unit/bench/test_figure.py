"""How a figure is written down."""

import json

from bench.figure import Figure


def test_a_figure_is_one_line_of_json():
    line = Figure("speed", 1234.5678, "tasks/s", 20_000, {"slots": 256}).line()
    assert "\n" not in line
    assert json.loads(line) == {
        "name": "speed",
        "value": 1235.0,
        "unit": "tasks/s",
        "n": 20_000,
        "settings": {"slots": 256},
    }


def test_a_small_value_keeps_its_digits():
    assert json.loads(Figure("share", 0.0123456, "", 1).line())["value"] == 0.01235
