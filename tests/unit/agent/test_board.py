"""What the supervisor says of one task is settled apart from what it says of the others."""

import asyncio

import pytest

from agent.board import Board
from agent.outbox import Outbox
from agent.room import Room
from agent.spool import Spool


@pytest.fixture
async def board(tmp_path):
    """A board that has just begun, and its outbox."""
    spool, outbox = Spool(tmp_path), Outbox()
    spool.create()
    async with asyncio.TaskGroup() as group:
        yield Board(spool, 1, outbox, lambda _: None, Room(spool, group), group), outbox


def state(lease, end):
    return {
        **{"lease": lease, "task": f"task {lease}", "attempt": 1, "kill_grace": 1.0},
        **{"stop_with_lease": False, "started_at": 1, "running": end is None, "end": end},
    }


async def test_a_word_that_cannot_be_taken_stops_no_other(board):
    board, outbox = board
    broken = state("broken", {"a": 1})
    board.supervisor_found([broken, state("sound", None)])
    frame = await outbox.next_frame()
    assert [status.task_id for status in frame.statuses] == ["task sound"]
    board.supervisor_says({"kind": "ended", **broken})
    board.supervisor_says({"kind": "unkillable", "lease": "sound"})
