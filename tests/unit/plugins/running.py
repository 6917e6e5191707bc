"""Runs bundled plugins as the plugin host does: processes, with parameters in variables."""

import os
import subprocess
import sys
from pathlib import Path

from plugins.bundled import folders
from plugins.host.simple import variables
from plugins.host.step import manifest_of, parameters_of

ROOT = Path(__file__).parents[3]


def start(plugin, settings, folder, env=None, **options):
    """Start a plugin in a folder, with parameters that its schema takes."""
    home = folders()[plugin]
    parameters = parameters_of({"settings": settings}, manifest_of(home), env or {})
    return subprocess.Popen(  # noqa: S603 - our own plugins
        [sys.executable, str(home / "main.py")],
        cwd=folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            **(env or {}),
            **variables(parameters),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(plugin, settings, folder, env=None):
    """Run a plugin to its end; return its exit code, stdout and stderr."""
    with start(plugin, settings, folder, env) as process:
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err
