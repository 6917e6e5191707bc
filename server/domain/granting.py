"""What people are who log in elsewhere, by the groups that are told of them."""

from dataclasses import dataclass

from server.domain.access import Role

ANYBODY = "*"


@dataclass(frozen=True, slots=True)
class Grant:
    """What members of a group are in a namespace."""

    group: str
    """`*` is everybody who can log in."""
    role: Role
    namespace: str
    """`*` is every namespace."""


def parse_grants(text: str) -> tuple[Grant, ...]:
    """Return the grants in GROUP=ROLE:NAMESPACE,….

    Raises:
        ValueError: a part is something else.
    """
    grants = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        group, equals, rest = part.rpartition("=")
        role, colon, namespace = rest.partition(":")
        if not (group and equals and colon and namespace) or role not in set(Role):
            roles = ", ".join(Role)
            raise ValueError(f"{part!r} is not GROUP=ROLE:NAMESPACE, with a role of {roles}")
        grants.append(Grant(group, Role(role), namespace))
    return tuple(grants)
