"""`python -m plugins.host PLAN`: does the steps of a plan in order, until one fails."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from plugins.host.children import Children
from plugins.host.step import StepFailed, folder_of, manifest_of, parameters_of, program_of

FAILED = 1
"""Exit code where a step could not be run at all."""


def main() -> int:
    """Does what the plan says and returns the exit code."""
    # Its remarks are no lines of the task's log, and its handlers would not survive a fork.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8", errors="replace"))
    children = Children()
    signal.signal(signal.SIGTERM, lambda *_: children.stop())
    for number, step in enumerate(plan["steps"], 1):
        if children.stopping:
            return 128 + signal.SIGTERM
        name = step.get("name") or step.get("uses") or f"{number}"
        try:
            code = _run(step, children)
        except StepFailed as error:
            sys.stdout.flush()
            sys.stderr.write(f"muster: step {name}: {error}\n")
            return error.exit_code
        if code:
            if len(plan["steps"]) > 1:
                sys.stderr.write(f"muster: step {name}: exit code {code}\n")
            return code
    return 0


def _run(step: dict[str, Any], children: Children) -> int:
    if not step.get("uses"):
        return _commands(step["commands"], children)
    folder = folder_of(step)
    manifest = manifest_of(folder)
    parameters = parameters_of(step, manifest)
    program = program_of(folder, manifest)
    if manifest.protocol == "simple":
        from plugins.host.simple import variables

        return children.run(program, {**os.environ, **variables(parameters)})
    from plugins.host.grpc_plugin import run  # late: gRPC takes its time

    return run(program, manifest, parameters, children)


def _commands(commands: list[str], children: Children) -> int:
    with tempfile.NamedTemporaryFile("w", suffix=".sh", errors="replace") as script:
        script.write("".join(f"{command}\n" for command in commands))
        script.flush()
        return children.run(["/bin/sh", "-e", script.name], dict(os.environ))


if __name__ == "__main__":
    sys.exit(main())
