"""Blocks as agents pack them, opened as the server does."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.log_block import BlockBuilder
from agent.log_lines import Run
from server.domain.errors import DamagedLog
from server.domain.log import LogLine
from server.rpc.convert import block_of
from server.stores.log_blocks import lines_of

PIECES = st.binary(max_size=6).map(lambda piece: piece.replace(b"\n", b""))
RUNS = st.lists(st.tuples(st.integers(0, 2**40), st.sampled_from([1, 2]), st.lists(PIECES)))


def built(runs, first_line=1):
    """Return a block of runs (time, stream, lines)."""
    builder = BlockBuilder(first_line)
    for time, stream, lines in runs:
        builder.add(Run(time, stream, len(lines), b"".join(line + b"\n" for line in lines)))
    return block_of(builder.build())


@given(RUNS.map(lambda runs: [run for run in runs if run[2]]).filter(bool))
def test_what_an_agent_packs_comes_out_exactly(runs):
    expected = [
        (time, {1: "stdout", 2: "stderr"}[stream], {1: "info", 2: "error"}[stream], line)
        for time, stream, lines in runs
        for line in lines
    ]
    found = lines_of(built(runs))
    assert [(line.at, line.stream, line.level, line.exact) for line in found] == expected


def test_a_piece_of_a_long_line_is_marked_and_may_hold_anything():
    builder = BlockBuilder(5)
    builder.add(Run(1, 1, 1, b"be\xff\n", True))
    builder.add(Run(1, 1, 1, b"gun\n"))
    assert lines_of(block_of(builder.build())) == [
        LogLine(1, "stdout", "info", "be\ufffd", b"be\xff", True),
        LogLine(1, "stdout", "info", "gun"),
    ]


@pytest.mark.parametrize("count", [1, 200])
def test_a_flipped_bit_is_found_wherever_it_is(count):
    block = built([(1, 1, [b"line"] * count)])
    for place in range(len(block.data)):
        data = bytearray(block.data)
        data[place] ^= 4
        with pytest.raises(DamagedLog):
            lines_of(replace(block, data=bytes(data)))


@pytest.mark.parametrize(
    "lie",
    [{"lines": 199}, {"crc": 1}, {"plain_bytes": 100}, {"plain_bytes": 1}],
    ids=lambda lie: next(iter(lie)),
)
def test_a_block_that_is_not_what_it_says_is_not_served(lie):
    block = built([(1, 1, [b"line"] * 200)])
    with pytest.raises(DamagedLog):
        lines_of(replace(block, **lie))
