"""Work and the wish for it meet at every moment of a commit, and never miss each other.

`make races` runs 100,000 rounds; a short run is part of every test run.
"""

import asyncio
import os
from random import Random

import pytest

from tests.fakes.shop import COMMIT_SECONDS, Shop
from tests.fakes.virtual_time import VirtualTimeLoop

ROUNDS = int(os.environ.get("RACES", "1000"))
ROUNDS_A_SHOP = 25  # the memory database copies all of its rows at each commit
SECOND = 1.0


class Rounds:
    """Rounds of one task and one wish for work, each at a random moment."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)  # noqa: S311 (the same rounds for the same seed)

    async def run(self, rounds: int) -> None:
        shop = Shop()
        async with shop.open():
            fetching = await shop.arrive("fetching", pushes=False)
            pushed = await shop.arrive("pushed")
            for number in range(rounds):
                agent = self._random.choice([fetching, pushed])
                await asyncio.gather(self._submit(shop, number), self._want(shop, agent))
                async with asyncio.timeout(10 * SECOND):
                    await self._done(shop, number)

    async def _pause(self) -> None:
        await asyncio.sleep(self._random.choice([0, 0.5, 1, 1.5, 2.5]) * COMMIT_SECONDS)

    async def _submit(self, shop, number) -> None:
        await self._pause()
        await shop.submit(f"t{number}")

    async def _want(self, shop, session) -> None:
        """Begin to want work, perhaps after a while of not wanting it."""
        for other in shop.sessions:
            other.draining = True
        await self._pause()
        session.draining = False
        if session.mailbox is not None:
            shop.dispatcher.capacity_changed()
        else:
            given, _ = await shop.fetching(session, 5 * SECOND)
            assert given, "the fetch came back empty although there is work"
            await shop.tell("fetching", given[0])

    async def _done(self, shop, number) -> None:
        while not shop.task(f"t{number}").status.ended:
            pushed = shop.sessions.of_agent("pushed")
            if shop.task(f"t{number}").leased and not pushed.draining:
                for frame in await pushed.mailbox.take():
                    for given in frame.assignments:
                        await shop.tell("pushed", given)
            await asyncio.sleep(COMMIT_SECONDS)


@pytest.mark.parametrize("part", range(4))
def test_no_wake_up_is_missed(part):
    for first in range(0, ROUNDS // 4, ROUNDS_A_SHOP):
        seed = part * ROUNDS + first
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            try:
                runner.run(Rounds(seed).run(ROUNDS_A_SHOP))
            except BaseExceptionGroup as error:
                raise AssertionError(f"missed with the seed {seed}") from error
