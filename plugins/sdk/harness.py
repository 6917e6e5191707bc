"""Runs a plugin without a server or an agent, exactly as an agent would: for its author's tests."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ran:
    """How it went. `outputs` is the text of MUSTER_OUTPUT: lines `NAME=VALUE`."""

    exit_code: int
    stdout: str
    stderr: str
    outputs: str


def run(
    folder: Path,
    parameters: Mapping[str, Any],
    workspace: Path,
    env: Mapping[str, str] | None = None,
    timeout: float | None = 60.0,
    *,
    show: bool = False,
) -> Ran:
    """Run the plugin in a folder, with what a pipeline file would have under `with:`.

    `show` lets it print where this program prints, instead of telling it afterwards.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    step = {"uses": folder.name, "settings": dict(parameters), "folder": str(folder.resolve())}
    with tempfile.TemporaryDirectory() as temporary:
        plan, outputs = Path(temporary, "plan.json"), Path(temporary, "outputs")
        plan.write_text(json.dumps({"steps": [step]}), encoding="utf-8")
        ended = subprocess.run(  # noqa: S603 (our own program)
            [sys.executable, "-P", "-m", "plugins.host", plan],
            cwd=workspace,
            env={
                **os.environ,
                **(env or {}),
                "TMPDIR": temporary,
                "HOME": str(workspace),
                "MUSTER_OUTPUT": str(outputs),
            },
            stdin=subprocess.DEVNULL,
            capture_output=not show,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        told = outputs.read_text("utf-8") if outputs.exists() else ""
    return Ran(ended.returncode, ended.stdout or "", ended.stderr or "", told)
