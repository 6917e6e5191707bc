"""The simple protocol: parameters are variables, as plugins for Drone and Woodpecker expect."""

import json
import re
from collections.abc import Mapping
from typing import Any

PREFIX = "PLUGIN_"


def variables(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Returns the variables: `PLUGIN_` and the name in capitals.

    Text and numbers are as they are, truth is `true` or `false`, plain lists are parted by commas,
    and all else is JSON: also a list with a comma in one of its texts, or that would look like
    JSON. What is null is left out.
    """
    return {
        PREFIX + re.sub(r"[^A-Z0-9]", "_", name.upper()): _text(value)
        for name, value in parameters.items()
        if value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and not any(isinstance(each, dict | list) for each in value):
        texts = [_text(each) for each in value]
        if not any("," in text for text in texts) and not "".join(texts[:1]).startswith("["):
            return ",".join(texts)
    return json.dumps(value, ensure_ascii=False)
