"""`python -m plugins.host PLAN`: does the steps of a plan in order, until one fails."""

import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from plugins.host.children import STOPPED, Children
from plugins.host.limits import LIMITS, Limits
from plugins.host.saying import ERR, say
from plugins.host.step import StepFailed, folder_of, manifest_of, parameters_of, program_of

FAILED = 1
"""Exit code where a step could not be run at all."""


def main(file: str, limits: Limits = LIMITS) -> int:
    """Does what the plan in a file says and returns the exit code."""
    children = Children(dict(os.environ))
    signal.signal(signal.SIGTERM, lambda *_: children.stop())
    # For gRPC in here, not in the task: its remarks are no lines of a log, and its handlers would
    # not survive a fork.
    os.environ.update({"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"})
    plan = json.loads(Path(file).read_text(encoding="utf-8", errors="replace"))
    children.grace = float(plan.get("kill_grace", 0))
    for number, step in enumerate(plan["steps"], 1):
        if children.stopping:
            return STOPPED
        name = step.get("name") or step.get("uses") or f"{number}"
        try:
            code = _run(step, children, limits)
        except StepFailed as error:
            say(ERR, f"muster: step {name}: {error}")
            return error.exit_code
        except OSError as error:
            say(ERR, f"muster: step {name}: {error}")
            return FAILED
        if code:
            if len(plan["steps"]) > 1:
                say(ERR, f"muster: step {name}: exit code {code}")
            return code
    return 0


def _run(step: dict[str, Any], children: Children, limits: Limits) -> int:
    if not step.get("uses"):
        return _commands(step["commands"], children)
    folder = folder_of(step)
    manifest = manifest_of(folder)
    parameters = parameters_of(step, manifest, children.environment)
    program = program_of(folder, manifest)
    if manifest.protocol == "simple":
        from plugins.host.simple import variables

        return children.run(program, variables(parameters))
    from plugins.host.grpc_plugin import run  # late: gRPC takes its time

    return run(program, manifest, parameters, children, limits)


def _commands(commands: list[str], children: Children) -> int:
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8", errors="replace") as file:
        file.write("".join(f"{command}\n" for command in commands))
        file.flush()
        return children.run(["/bin/sh", "-e", file.name])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
