"""CRC-32 of two pieces of bytes put together, from the CRC-32 of each.

Bytes that follow shift the CRC of what comes before by x^(8 · their number) in the field of
polynomials over GF(2), modulo the polynomial of CRC-32. Its bits stand in reverse order here.
"""

from functools import lru_cache

_POLYNOMIAL = 0xEDB88320
_ONE = 1 << 31


def combine(first: int, second: int, second_size: int) -> int:
    """Return the CRC-32 of some bytes and `second_size` further ones, from the CRC-32 of both."""
    return _product(_shift(second_size), first) ^ second


def _product(a: int, b: int) -> int:
    result, bit = 0, _ONE
    while a:
        if a & bit:
            result ^= b
            a ^= bit
        bit >>= 1
        b = (b >> 1) ^ _POLYNOMIAL if b & 1 else b >> 1
    return result


def _squares() -> list[int]:
    """Return x, x², x⁴, x⁸ … up to x^(2^31); after that they come again."""
    powers = [1 << 30]
    while len(powers) < 32:
        powers.append(_product(powers[-1], powers[-1]))
    return powers


_SQUARES = _squares()


@lru_cache(maxsize=1024)
def _shift(size: int) -> int:
    power, index = _ONE, 3
    while size:
        if size & 1:
            power = _product(_SQUARES[index % 32], power)
        size >>= 1
        index += 1
    return power
