"""What `muster plugin init` writes."""

from enum import StrEnum


class Language(StrEnum):
    """What a plugin can be begun in."""

    SH = "sh"
    PYTHON = "python"


MANIFEST = """\
id = "{id}"
version = "0.1.0"
type = "{type}"
protocol = "{protocol}"
description = "Greets."

# What it asks for: network, workspace, secrets, artifacts.
permissions = []

# The program for each platform, such as "linux/amd64"; "any" runs everywhere.
[entry_points]
any = "{program}"

# A JSON Schema of what it takes; {given}.
[parameters]
type = "object"
required = ["name"]
additionalProperties = false

[parameters.properties.name]
type = "string"
minLength = 1
"""

SCRIPT = """\
#!/bin/sh
set -eu
echo "Hello, $PLUGIN_NAME."
echo "greeted=$PLUGIN_NAME" >> "$MUSTER_OUTPUT"
"""

PYTHON = '''\
#!/usr/bin/env python3
"""Greets."""

from plugins.sdk import Context, plugin, serve


@plugin
def main(context: Context, name: str) -> dict[str, str]:
    """Greet somebody."""
    context.log(f"Hello, {name}.")
    return {"greeted": name}


if __name__ == "__main__":
    serve(main)
'''

_PROGRAMS = {
    Language.SH: ("simple", "main.sh", "name reaches the program as PLUGIN_NAME", SCRIPT),
    Language.PYTHON: ("grpc", "main.py", "name is the parameter name of the function", PYTHON),
}


def files(id_: str, type_: str, language: Language) -> list[tuple[str, str, int]]:
    """Return the files of a new plugin: name, text, mode."""
    protocol, program, given, text = _PROGRAMS[language]
    manifest = MANIFEST.format(id=id_, type=type_, protocol=protocol, program=program, given=given)
    return [("plugin.toml", manifest, 0o644), (program, text, 0o755)]
