"""Levels of log records, and those of single modules."""

from typing import Literal, get_args

Level = Literal["debug", "info", "warning", "error"]
LEVELS: tuple[Level, ...] = get_args(Level)


def parse_levels(text: str) -> dict[str, Level]:
    """Return a level for each module of MODULE=LEVEL,….

    Raises:
        ValueError: a part is something else.
    """
    levels: dict[str, Level] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        module, _, name = (word.strip() for word in part.partition("="))
        level = next((level for level in LEVELS if level == name), None)
        if not module or level is None:
            raise ValueError(f"should be MODULE=LEVEL,… with {', '.join(LEVELS)} for LEVEL")
        levels[module] = level
    return levels
