"""Writes docs/access-matrix.md: every call and route, and who gets past its door.

Rows come from the descriptors and the routes, marks from the access table; tests/e2e/
test_access_matrix.py calls every door as everybody and sees that this is how it is.
"""

import sys
from pathlib import Path

from server.access import ROUTES, RPCS
from server.domain.access import GRANTS, Permission, Role, may

WHO: dict[str, frozenset[Permission]] = {
    "nobody": frozenset(),
    **{role.value: GRANTS[role] for role in Role},
    "server-wide viewer": GRANTS[Role.VIEWER] | {Permission.MEASURE},
    "enrolling host": frozenset({Permission.ENROL}),
    "agent": frozenset({Permission.SERVE}),
    "task": frozenset({Permission.ATTEND}),
}
HEAD = """# Who gets past which door

Made by `make access-matrix` from `server/access.py`. A namespace that is not one's own is closed to
everybody but the holders of server-wide tokens, whatever stands here. An agent speaks for itself
alone, a task of itself and its run.

"""


def text() -> str:
    """Return the page."""
    names = list(WHO)
    lines = [f"| call or route | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for door, wanted in [*sorted(RPCS.items()), *ROUTES.items()]:
        marks = ["yes" if may(held, wanted) else "" for held in WHO.values()]
        lines.append(f"| `{door.removeprefix('/')}` | {' | '.join(marks)} |")
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
