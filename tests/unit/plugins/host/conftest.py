"""Plugins that are written for a test, and the host that runs them as a process of its own."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.supervisor.outputs import parse

HOST = """
import sys
from plugins.host.__main__ import main
from plugins.host.limits import Limits
sys.exit(main(sys.argv[1], Limits(handshake=float(sys.argv[2]), call=2.0, goodbye=1.0)))
"""


@dataclass
class Ended:
    """How the host ended; `outputs` are what a supervisor reads, and what it finds wrong."""

    code: int
    out: str
    err: str
    outputs: tuple[dict[str, str], str]


class Host:
    """Writes plugins and plans into a folder, and runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.workspace.mkdir()
        self.outputs = folder / "outputs"
        self.process = None

    def plugin(self, id_, program, protocol="simple", parameters="", entry="any", name="main"):
        """Writes a plugin and returns the step that uses it."""
        folder = self.folder / f"plugin-{id_}"
        folder.mkdir()
        (folder / "plugin.toml").write_text(
            f'id = "{id_}"\nversion = "1.0.0"\ntype = "step"\nprotocol = "{protocol}"\n'
            f'entry_points = {{"{entry}" = "{name}"}}\n'
            f'[parameters]\ntype = "object"\n{parameters}\n'
        )
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
        return {"uses": f"{id_}@1.0.0", "folder": str(folder)}

    def start(self, *steps, env=None, handshake=10.0):
        """Starts the host in the workspace."""
        plan = self.folder / "plan.json"
        plan.write_text(json.dumps({"steps": list(steps), "kill_grace": 7}))
        self.process = subprocess.Popen(  # noqa: S603 - the host under test
            [sys.executable, "-I", "-c", HOST, plan, str(handshake)],
            cwd=self.workspace,
            env={
                "PATH": os.environ["PATH"],
                "TMPDIR": str(self.folder),
                "MUSTER_OUTPUT": str(self.outputs),
                **(env or {}),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        return self.process

    def end(self, seconds=30.0):
        """Waits for the end."""
        out, err = self.process.communicate(timeout=seconds)
        told = self.outputs.read_bytes().decode() if self.outputs.exists() else ""
        return Ended(self.process.returncode, out, err, parse(told))

    def run(self, *steps, env=None, handshake=10.0):
        """Runs steps to their end."""
        self.start(*steps, env=env, handshake=handshake)
        return self.end()


@pytest.fixture
def host(tmp_path):
    """A host, whose processes end with the test."""
    found = Host(tmp_path)
    yield found
    if found.process is not None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found.process.pid, signal.SIGKILL)
        found.process.wait()
        found.process.stdout.close()
        found.process.stderr.close()
