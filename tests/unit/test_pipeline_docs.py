"""What the documentation shows is true: examples are fine, the schema is current."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from server.definition.expanding import read_definition
from server.definition.schedule_file import read_schedules
from server.definition.schema import pipeline_schema

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs"
BLOCKS = re.findall(r"```yaml\n(.*?)```", (PAGES / "pipelines.md").read_text(), re.DOTALL)
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("text", BLOCKS, ids=lambda text: text.split("\n")[0])
def test_each_example_of_the_page_is_fine(text):
    read_definition(text)


def test_the_page_has_examples():
    assert len(BLOCKS) >= 10


@pytest.mark.parametrize("text", [*BLOCKS, *(path.read_text() for path in EXAMPLES)])
def test_the_schema_takes_what_the_reader_takes(text):
    jsonschema.validate(YAML(typ="safe", pure=True).load(text), pipeline_schema())


def test_the_schema_in_the_documentation_is_current():
    written = (PAGES / "pipeline.schema.json").read_text()
    assert json.loads(written) == pipeline_schema(), "muster pipeline schema writes it anew"


def test_the_file_of_schedules_is_fine():
    (text,) = re.findall(r"```toml\n(.*?)```", (PAGES / "schedules.md").read_text(), re.DOTALL)
    assert [each.name for each in read_schedules("s.toml", text.encode())] == ["nightly"]
