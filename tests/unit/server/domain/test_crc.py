import zlib

from hypothesis import given
from hypothesis import strategies as st

from server.domain.crc import combine


@given(st.binary(), st.binary())
def test_the_crc_of_two_pieces_is_that_of_the_whole(first, second):
    assert combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_also_of_long_ones():
    first, second = b"a" * 70_000, b"b" * 3_000_000
    assert combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)
