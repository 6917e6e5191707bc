"""Lines are a function of the bytes, however they were read."""

import itertools
import zlib

from hypothesis import given
from hypothesis import strategies as st

from agent.log_lines import LONGEST_LINE, LineCutter


def cut(pieces):
    """Returns the lines of one stream that was read in these pieces, and the cutter."""
    cutter = LineCutter()
    lines = [line for piece in pieces for line in cutter.feed(7, 1, piece)]
    return lines + cutter.finish(), cutter


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
    assert [line.data for line in lines] == expected
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
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
    assert all(len(line.data) <= LONGEST_LINE for line in lines)
    *pieces, last, following = lines
    assert all(piece.continued for piece in pieces)
    assert not last.continued
    assert b"".join(line.data for line in [*pieces, last]) == data[: -len(b"\nnext")]
    assert following.data == b"next"


def test_a_line_of_exactly_the_limit_stays_whole():
    lines, _ = cut([b"x" * LONGEST_LINE, b"\n"])
    assert [(len(line.data), line.continued) for line in lines] == [(LONGEST_LINE, False)]


def test_a_long_line_is_not_cut_inside_a_character():
    data = b"x" * (LONGEST_LINE - 1) + "€€".encode()
    first, second = cut([data])[0]
    assert first.data == b"x" * (LONGEST_LINE - 1)
    assert second.data == "€€".encode()


def test_streams_do_not_mix_and_an_open_line_at_the_end_counts():
    cutter = LineCutter()
    assert cutter.feed(1, 1, b"out") == []
    (error,) = cutter.feed(2, 2, b"err\n")
    assert (error.number, error.stream, error.data) == (1, 2, b"err")
    (last,) = cutter.finish()
    assert (last.number, last.time, last.data) == (2, 1, b"out")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2]),
            st.sampled_from([b"\n", b"a\nb", b"xyz", b"\xff\n\n", b"x" * LONGEST_LINE + b"\n"]),
        ),
        max_size=8,
    )
)
def test_counting_lines_comes_to_the_same_as_cutting_them(records):
    cutting, counting = LineCutter(), LineCutter()
    for time, (stream, data) in enumerate(records):
        cutting.feed(time, stream, data)
        counting.count(time, stream, data)
        assert counting.partials == cutting.partials
    for cutter in (cutting, counting):
        cutter.finish()
    totals = [(c.lines, c.bytes, c.crc32) for c in (cutting, counting)]
    assert totals[0] == totals[1]
