"""Some rooms must work without anything installed; import-linter cannot say that, so this does."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = {
    "server/domain": ("server.domain",),
    "agent/supervisor": ("agent.supervisor", "agent.spool"),
    "agent/spool.py": (),
}


def sources(room):
    path = ROOT / room
    return [path] if path.suffix else sorted(path.rglob("*.py"))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield from (f"{module}.{alias.name}" for alias in node.names)


def is_allowed(name, ours):
    return name.partition(".")[0] in sys.stdlib_module_names or any(
        name == room or name.startswith(f"{room}.") for room in ours
    )


@pytest.mark.parametrize("room", ROOMS)
def test_the_room_imports_the_standard_library_and_its_own(room):
    found = {name: path.name for path in sources(room) for name in imported(path)}
    assert found
    assert {name: file for name, file in found.items() if not is_allowed(name, ROOMS[room])} == {}
