"""`python -m tests.chaos --seed S --minutes M --database sqlite|postgres`: one run, exit 0 or 1."""

import argparse
import asyncio
import json
import logging
import signal
import sys

from tests.chaos.run import Options, run

MARGIN = 300.0
"""Seconds beyond breaking and settling after which the run gives itself up."""


class OutOfTimeError(BaseException):
    """The run has taken longer than it ever may. Nothing may catch it by mistake."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long things are broken")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--tasks", type=int, help="400 a minute unless told otherwise")
    parser.add_argument("--runs", type=int, help="pipeline runs; 4 a minute unless told otherwise")
    parser.add_argument("--keep", action="store_true", help="leave the folder of a failed run")
    given = parser.parse_args()
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s"
    )
    options = Options(
        seed=given.seed,
        database=given.database,
        seconds=given.minutes * 60,
        tasks=round(400 * given.minutes) if given.tasks is None else given.tasks,
        runs=round(4 * given.minutes) if given.runs is None else given.runs,
        keep=given.keep,
    )
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(int(options.seconds + options.settle + MARGIN))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result = asyncio.run(run(options))
    for violation in result.violations:
        sys.stdout.write(f"VIOLATION {violation}\n")
    summary = result.summary()
    sys.stdout.write(
        f"seed {options.seed} on {options.database}: {summary['tasks']} tasks in "
        f"{summary['attempts']} attempts, {summary['faults']} faults, {summary['lost']} attempts "
        f"lost, {summary['adoptions']} adopted, {len(result.violations)} violations\n"
    )
    sys.stdout.write(json.dumps(summary) + "\n")
    return 1 if result.violations else 0


def _out_of_time(*_: object) -> None:
    raise OutOfTimeError


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
