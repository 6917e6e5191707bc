"""Runs a plugin without a server or an agent, exactly as an agent would: for its author's tests."""

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ran:
    """How it went. `outputs` is the text of MUSTER_OUTPUT: lines `NAME=VALUE`.

    It is empty where the plugin made no plain file of it.
    """

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

    `show` lets it print where this program prints, instead of telling it afterwards. All that it
    started ends with it, or when this is interrupted.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout` seconds.
    """
    step = {"uses": folder.name, "settings": dict(parameters), "folder": str(folder.resolve())}
    with tempfile.TemporaryDirectory() as temporary:
        plan, outputs = Path(temporary, "plan.json"), Path(temporary, "outputs")
        plan.write_text(json.dumps({"steps": [step]}), encoding="utf-8")
        caught = None if show else subprocess.PIPE
        with subprocess.Popen(  # noqa: S603 (our own program)
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
            stdout=caught,
            stderr=caught,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as host:
            try:
                stdout, stderr = host.communicate(timeout=timeout)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(host.pid, signal.SIGKILL)
        return Ran(host.returncode, stdout or "", stderr or "", _text_of(outputs))


def _text_of(outputs: Path) -> str:
    """Return what a plain file says; the plugin may have made anything else of it."""
    try:
        descriptor = os.open(outputs, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return ""
    with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read()
