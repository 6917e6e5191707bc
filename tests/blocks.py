"""Packed log lines for tests: opened as readers see them."""

from server.domain.changes import LogBatch
from server.domain.log import pack
from server.rpc.convert import block_of, chunk
from server.stores.log_blocks import lines_of


def chunks_in(message):
    """Return the lines of an `agent.v1.LogBlock` as `stream.v1.LogChunk`s."""
    lines = lines_of(block_of(message))
    return [chunk(line, number) for number, line in enumerate(lines, message.first_line)]


def batch(task_key, attempt, first_line, lines):
    """Return lines as a row of a log."""
    return LogBatch(task_key, attempt, "default", pack(first_line, lines))
