"""Gathers what there is to know about a task, for the rule that explains it."""

from server.domain.claiming import may_be_heard_of
from server.domain.labels import Selector
from server.domain.policy import Policy
from server.domain.task import TaskSpec, TaskStatus
from server.domain.waiting import (
    AHEAD_LIMIT,
    Candidate,
    Explanation,
    Fit,
    Need,
    Situation,
    explain,
    judge,
)
from server.engine.clock import Clock
from server.engine.sessions import Sessions
from server.stores.interfaces import Reader, TaskView

SOMEBODY = 1
"""What is told of tasks of other namespaces where their number is nobody's business."""


class Explainer:
    """Explains tasks by what the database says, so that every server says the same.

    Memory adds only what agents here have said of themselves.
    """

    def __init__(
        self,
        reader: Reader,
        sessions: Sessions,
        clock: Clock,
        policy: Policy,
        *,
        isolated: bool = False,
    ) -> None:
        self._isolated = isolated
        """Whether namespaces must not learn how much others have to do."""
        self._reader = reader
        self._sessions = sessions
        self._clock = clock
        self._policy = policy

    async def explain(self, view: TaskView) -> Explanation:
        """Return why a task stands where it stands."""
        task, now = view.task, self._clock.now()
        selector = Selector.from_canonical(view.canonical_class)
        fleet = await self._fleet(task.namespace) if task.ready else []
        barred = may_be_heard_of(task, view.attempts, now, self._policy)
        fitting = [c for c in fleet if judge(c, selector, barred, now).fit is not Fit.UNFIT]
        ahead, others = await self._line(view, fitting)
        spec = TaskSpec.from_json(task.spec)
        return explain(
            Situation(
                task,
                selector,
                now,
                image=spec.image,
                plugins=[
                    *(["git-checkout"] if spec.checkout else []),
                    *(step["uses"] for step in spec.steps if step["uses"]),
                ],
                needs=[Need(i, name, TaskStatus(status)) for i, name, status in view.depends_on],
                crowd=view.crowd,
                gate=view.gate,
                turn=view.turn,
                fleet=fleet,
                barred=barred,
                ahead=ahead,
                others=others,
                hides_others=self._isolated,
            )
        )

    async def _fleet(self, namespace: str) -> list[Candidate]:
        """Return the agents that run tasks of a namespace."""
        return [
            Candidate(agent, held, self._takes_work(agent.public_id, agent.session_id))
            for agent, held in await self._reader.connected_agents()
            if agent.serves(namespace)
        ]

    def _takes_work(self, agent_id: str, session_id: str) -> bool:
        session = self._sessions.of_agent(agent_id)
        return session is None or session.session_id != session_id or not session.draining

    async def _line(self, view: TaskView, fitting: list[Candidate]) -> tuple[int, int]:
        """Return how many ready tasks that the agents that fit it could take are in its way.

        Those of its own namespace that stand before it, and those of others.
        """
        if not fitting:
            return 0, 0
        labels = [candidate.agent.effective_labels for candidate in fitting]
        shared = [c.agent.effective_labels for c in fitting if not c.agent.confined]
        limit = AHEAD_LIMIT + 1
        ahead = others = 0
        for canonical, own, foreign in await self._reader.ready_before(view.task, limit):
            selector = Selector.from_canonical(canonical)
            if any(selector.matches(each) for each in labels):
                ahead += own
            if any(selector.matches(each) for each in shared):
                others += foreign
        others = min(others, SOMEBODY) if self._isolated else others
        return min(ahead, limit), min(others, limit)
