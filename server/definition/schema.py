"""The JSON Schema of pipeline files, for editors."""

from typing import Any

from server.definition.grammar import PIPELINE


def pipeline_schema() -> dict[str, Any]:
    """Return the schema."""
    shared: dict[str, Any] = {}
    whole = PIPELINE.schema(shared)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of Muster",
        **whole,
        "$defs": dict(sorted(shared.items())),
    }
