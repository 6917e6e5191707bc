"""How long a plugin may take for what is not its work."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Seconds.

    Attributes:
        handshake: Until it says where it serves.
        call: For each answer, but that of Execute.
        goodbye: Until it has ended, once it has given its result.
    """

    handshake: float = 10.0
    call: float = 10.0
    goodbye: float = 5.0


LIMITS = Limits()
