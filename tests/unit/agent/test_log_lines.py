"""Lines are a function of the bytes, however they were read."""

import itertools
import zlib

from hypothesis import given
from hypothesis import strategies as st

from agent.log_lines import LONGEST_LINE, LineCutter, Run


def lines_in(runs):
    """Returns (time, stream, bytes, continued) of each line."""
    found = []
    for run in runs:
        lines = run.text.removesuffix(b"\n").split(b"\n")
        assert run.text.endswith(b"\n")
        assert len(lines) == run.lines
        found += [(run.time, run.stream, line, run.continued) for line in lines]
    return found


def cut(pieces):
    """Returns the lines of one stream that was read in these pieces, and the cutter."""
    cutter = LineCutter()
    runs = [run for piece in pieces for run in cutter.feed(7, 1, piece)]
    return lines_in(runs + cutter.finish()), cutter


def texts(lines):
    """Returns (bytes, continued) of each line."""
    return [line[2:] for line in lines]


def split(data, borders):
    """Cuts bytes at the given places."""
    places = [0, *sorted({border % (len(data) + 1) for border in borders}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(places) if b > a]


@given(
    st.lists(st.sampled_from([b"\n", b"a", b"\r", b"\xff", "ü".encode(), b"\0"])).map(b"".join),
    st.lists(st.integers(min_value=0)),
)
def test_any_read_borders_give_the_same_lines(data, borders):
    lines, cutter = cut(split(data, borders))
    assert lines == cut([data] if data else [])[0]
    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert texts(lines) == [(line, False) for line in expected]
    text = b"".join(line + b"\n" for line in expected)
    assert (cutter.lines, cutter.bytes, cutter.crc32) == (len(lines), len(text), zlib.crc32(text))


@given(
    st.integers(-3, 3),
    st.sampled_from([b"x", "€".encode(), b"\x80"]),
    st.lists(st.integers(min_value=0), max_size=5),
)
def test_a_long_line_becomes_the_same_pieces_for_any_read_borders(extra, end, borders):
    data = b"x" * (2 * LONGEST_LINE + extra) + end * 2 + b"\nnext"
    lines, _ = cut(split(data, borders))
    assert lines == cut([data])[0]
    *pieces, last, following = texts(lines)
    assert all(len(text) <= LONGEST_LINE for text, _ in texts(lines))
    assert all(continued for _, continued in pieces)
    assert not last[1]
    assert b"".join(text for text, _ in [*pieces, last]) == data[: -len(b"\nnext")]
    assert following == (b"next", False)


def test_a_line_of_exactly_the_limit_stays_whole():
    lines, _ = cut([b"x" * LONGEST_LINE, b"\n"])
    assert texts(lines) == [(b"x" * LONGEST_LINE, False)]


def test_a_long_line_is_not_cut_inside_a_character():
    data = b"x" * (LONGEST_LINE - 1) + "€€".encode()
    first, second = texts(cut([data])[0])
    assert first == (b"x" * (LONGEST_LINE - 1), True)
    assert second == ("€€".encode(), False)


def test_streams_do_not_mix_and_an_open_line_at_the_end_counts():
    cutter = LineCutter()
    assert cutter.feed(1, 1, b"out") == []
    assert cutter.feed(2, 2, b"err\n") == [Run(2, 2, 1, b"err\n")]
    assert cutter.lines == 1
    assert cutter.finish() == [Run(1, 1, 1, b"out\n")]
    assert cutter.lines == 2


def test_a_line_has_the_time_of_its_first_byte_and_whole_lines_stay_together():
    cutter = LineCutter()
    cutter.feed(1, 1, b"be")
    runs = cutter.feed(5, 1, b"gun\nwhole\nagain\nop")
    assert runs == [Run(1, 1, 1, b"begun\n"), Run(5, 1, 2, b"whole\nagain\n")]
    assert cutter.feed(9, 1, b"en\n") == [Run(5, 1, 1, b"open\n")]


def test_many_empty_lines_are_one_run():
    lines, cutter = cut([b"\n" * 100_000])
    assert texts(lines) == [(b"", False)] * 100_000
    assert cutter.bytes == 100_000


@given(st.lists(st.sampled_from([b"", b"a", b"\xff"]), min_size=1), st.integers(min_value=0))
def test_a_run_without_its_first_lines_is_the_rest(lines, count):
    count %= len(lines)
    run = Run(7, 1, len(lines), b"".join(line + b"\n" for line in lines))
    rest = run.after(count)
    assert [text for text, _ in texts(lines_in([rest]))] == lines[count:]
