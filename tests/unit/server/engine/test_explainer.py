"""Explanations by what the database says, and by what agents here have said of themselves."""

import pytest

from server.domain.errors import NotFound
from server.domain.waiting import Fit, WaitingFor
from server.engine.explainer import Explainer
from tests.fakes.core import NAMESPACE, needs
from tests.fakes.shop import Shop
from tests.fakes.virtual_time import in_virtual_time


async def explained(shop, task_id, sessions=None):
    explainer = Explainer(shop.reader, sessions or shop.sessions, shop.clock, shop.policy)
    return await explainer.explain(await shop.reader.task(NAMESPACE, task_id))


@in_virtual_time
async def test_agents_count_that_only_another_server_knows():
    shop, other = Shop(), Shop()
    async with shop.open():
        await shop.arrive("plain", labels={"os": "linux"}, pushes=False)
        await shop.arrive("fits", labels={"gpu": "yes"}, pushes=False)
        await shop.submit("t", selector=needs(gpu="yes"))
        for sessions in (shop.sessions, other.sessions):
            found = await explained(shop, "t", sessions)
            assert found.waiting_for is WaitingFor.HANDOUT
            assert [(a.agent_id, a.fit) for a in found.agents] == [
                ("fits", Fit.ELIGIBLE),
                ("plain", Fit.UNFIT),
            ]


@in_virtual_time
async def test_an_agent_that_takes_no_work_says_so_until_it_is_another_session():
    shop = Shop()
    async with shop.open():
        session = await shop.arrive("a", pushes=False)
        session.draining = True
        await shop.submit("t")
        assert (await explained(shop, "t")).waiting_for is WaitingFor.OPEN_AGENT
        session.session_id = "an older one"
        assert (await explained(shop, "t")).waiting_for is WaitingFor.HANDOUT


@in_virtual_time
async def test_the_line_counts_what_fitting_agents_could_take_instead():
    shop = Shop()
    async with shop.open():
        await shop.arrive("a", labels={"gpu": "yes"}, pushes=False)
        await shop.submit("first")
        await shop.submit("for nobody here", selector=needs(os="plan9"))
        await shop.submit("second", selector=needs(gpu="yes"))
        await shop.submit("third")
        lines = [(await explained(shop, task_id)).ahead for task_id in ("first", "second", "third")]
        assert lines == [0, 1, 2]
        assert (await explained(shop, "third")).waiting_for is WaitingFor.TURN


@in_virtual_time
async def test_there_is_nothing_to_say_of_an_unknown_task():
    with pytest.raises(NotFound):
        await explained(Shop(), "t")
