"""What `muster plugin init` writes."""

MANIFEST = """\
id = "{id}"
version = "0.1.0"
type = "{type}"
protocol = "simple"
description = "Greets."

# What it asks for: network, workspace, secrets, artifacts.
permissions = []

# The program for each platform, such as "linux/amd64"; "any" runs everywhere.
[entry_points]
any = "main.sh"

# A JSON Schema. The parameter name reaches the program as PLUGIN_NAME.
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
"""


def files(id_: str, type_: str) -> list[tuple[str, str, int]]:
    """Return the files of a new plugin: name, text, mode."""
    return [
        ("plugin.toml", MANIFEST.format(id=id_, type=type_), 0o644),
        ("main.sh", SCRIPT, 0o755),
    ]
