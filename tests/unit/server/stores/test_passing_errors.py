"""asyncpg's own confusion when a connection breaks ends neither a server nor a command."""

import asyncio

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import IntegrityError, InternalError

from server.domain.errors import StoreUnavailable
from server.stores.interfaces import PoisonError
from server.stores.sql import hints
from server.stores.sql.database import _may_succeed_again, translated

CONFUSED = asyncpg.InternalClientError("cannot switch to state 12; another operation is running")


async def test_hints_are_said_again_over_a_new_connection(monkeypatch):
    talks = []
    again = asyncio.Event()

    async def talk(_self, _heard):
        talks.append(1)
        if len(talks) == 1:
            raise CONFUSED
        again.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(hints.PostgresHints, "_talk", talk)
    monkeypatch.setattr(hints, "RETRY_SECONDS", 0)
    running = hints.PostgresHints(make_url("postgresql://nobody@localhost/none"))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(running.run(lambda _: None))
        await asyncio.wait_for(again.wait(), 5)
        task.cancel()


def test_a_command_is_told_that_the_database_does_not_answer():
    with pytest.raises(StoreUnavailable), translated():
        raise InternalError("SELECT 1", {}, CONFUSED)


class UniqueViolationError(Exception):
    sqlstate = "23505"


def test_a_row_that_another_server_wrote_meanwhile_is_looked_for_again():
    error = IntegrityError("INSERT", {}, UniqueViolationError())
    assert _may_succeed_again(error)
    with pytest.raises(PoisonError), translated():
        raise error  # again and again: then it is the command's own fault
