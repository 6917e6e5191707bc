"""Lists that come in pages."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from grpc import aio

from cli.connection import Api
from cli.log_print import remark

PAGE = 200

Request = TypeVar("Request")
Item = TypeVar("Item")


class Page(Protocol):
    """What every answer with a page has."""

    @property
    def next_page_token(self) -> str:
        """Where the next page begins; empty on the last."""


Answer = TypeVar("Answer", bound=Page)


async def all_pages(
    api: Api,
    method: aio.UnaryUnaryMultiCallable[Request, Answer],
    request: Callable[[str, int], Request],
    items: Callable[[Answer], Iterable[Item]],
    limit: int,
) -> list[Item]:
    """Return up to `limit` items; `request` makes one from a page token and a page size.

    Tells on standard error when there are more.
    """
    found: list[Item] = []
    token = ""
    while len(found) < limit:
        page = await api.call(method, request(token, min(PAGE, limit - len(found))))
        found += items(page)
        token = page.next_page_token
        if not token:
            return found
    remark(f"there are more than {limit}; see them with --limit")
    return found
