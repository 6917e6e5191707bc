"""Why a task waits, as a sentence a person understands."""

from collections.abc import Sequence
from dataclasses import dataclass

from server.domain.labels import Selector
from server.domain.moment import Moment
from server.domain.task import Task, TaskStatus


@dataclass(frozen=True, slots=True)
class Fleet:
    """What the connected agents say to a task class."""

    connected: int
    fitting: int
    full: int
    """How many of the fitting ones have no free slot."""
    first_miss: str | None = None
    """What one agent that does not fit lacks."""


def waiting_reason(
    task: Task,
    image: str,
    needs: Sequence[tuple[str, str, int]],
    selector: Selector,
    fleet: Fleet,
    now: Moment,
) -> str:
    """Return why a task does not run yet, or "" when it runs or has ended.

    `needs` are (id, name, status) of what it depends on.
    """
    if task.status.ended or task.status is TaskStatus.RUNNING:
        return ""
    if task.leased:
        return f"Agent {task.last_agent_id} has it and is about to start it."
    if task.unmet:
        return _for_others(needs)
    if task.not_before is not None:
        seconds = max(0, task.not_before - now) / 1000
        return f"Its next try is in {seconds:.0f} seconds; the last one failed: {task.error}."
    if image and not fleet.fitting:
        return f"It needs the image {image}, and no connected agent can run images yet."
    return _for_an_agent(selector, fleet)


def _for_others(needs: Sequence[tuple[str, str, int]]) -> str:
    waiting = [f"{name} ({TaskStatus(s).name})" for _, name, s in needs if not TaskStatus(s).ended]
    shown = ", ".join(waiting[:5]) + (f" and {len(waiting) - 5} more" if len(waiting) > 5 else "")
    return f"It waits for {shown or 'what it depends on'}."


def _for_an_agent(selector: Selector, fleet: Fleet) -> str:
    if not fleet.connected:
        return "No agent is connected; start one with: muster-agent --server HOST:PORT"
    if not fleet.fitting:
        count = (
            "The one connected agent does not fit"
            if fleet.connected == 1
            else (f"None of the {fleet.connected} connected agents fits")
        )
        return f"{count} {selector.describe()}. {fleet.first_miss or ''}".strip()
    if fleet.full == fleet.fitting:
        agents = "agent is" if fleet.fitting == 1 else "agents are"
        return f"{fleet.fitting} fitting {agents} full; it is next when a slot gets free."
    return "A fitting agent has a free slot; it starts in a moment."
