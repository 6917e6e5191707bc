"""One database: SQLite by default, PostgreSQL for a company.

A transaction is a synchronous function. SQLite runs it in one thread of its own on a synchronous
engine; awaiting each statement would cost a third of the throughput (performance.md). PostgreSQL
runs the same function through `run_sync` on asyncpg. Reads go through a separate asynchronous pool.
"""

import asyncio
import fcntl
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from server.domain.errors import StoreUnavailable
from server.domain.source import Source
from server.stores.interfaces import Hints, NoHints, PoisonError
from server.stores.sql.keys import Keys
from server.stores.sql.migrate import migrate, refuse_unknown
from server.stores.sql.source import SqlSource

T = TypeVar("T")

# How long a statement waits for another process's lock before the caller is told.
BUSY_SECONDS = 2.0
READERS = 4
SQLITE = "sqlite:///"

# PostgreSQL: how long a connection and a statement may take, and how often a transaction is tried
# that lost a deadlock or its connection.
CONNECT_SECONDS = 5.0
STATEMENT_SECONDS = 10.0
TRIES = 4

# Serialization failure, deadlock; connection exceptions; the server is starting or shutting down.
# Unique and foreign keys: another server wrote or deleted the row since it was looked for.
PASSING_STATES = ("40001", "40P01", "08", "57P", "23505", "23503")

log = structlog.get_logger(__name__)


class DatabaseInUseError(Exception):
    """Another server works on the same SQLite file."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} is in use by another muster-server; stop that one or choose another --data-dir"
        )


class SqliteDatabase:
    """A database in one file, for one server."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock_file: IO[str] | None = None
        self._opened: tuple[int, int] | None = None
        """Device and inode of the file as it was opened."""
        self._keys = Keys()
        self.hints: Hints = NoHints()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._writer = create_engine(
            URL.create("sqlite", database=str(path)),
            # Statements come in many sizes (bulk.py); to parse one anew costs more than to run it.
            connect_args={"timeout": BUSY_SECONDS, "cached_statements": 512},
        )
        _begin(self._writer, "BEGIN IMMEDIATE")
        self._readers = create_async_engine(
            URL.create("sqlite+aiosqlite", database=str(path)),
            connect_args={"timeout": BUSY_SECONDS},
            pool_size=READERS,
            max_overflow=0,
        )
        _begin(self._readers.sync_engine, "BEGIN")

    async def open(self) -> None:
        """Lock the file against a second server, create it when missing, bring it up to date.

        Raises:
            DatabaseInUseError: another server has it.
            StoreUnavailable: it does not answer.
            UnknownSchemaError: it is not ours, or newer than this program.
        """
        self._lock_file = _lock(self._path)
        with translated():
            await self._in_thread(self._migrate)
        self._opened = _inode(self._path)

    def _migrate(self) -> None:
        with self._writer.begin() as connection:
            refuse_unknown(connection)
        # The file remembers this, so it comes after the look whether the file is ours.
        with closing(self._writer.raw_connection()) as raw:
            raw.cursor().execute("PRAGMA journal_mode=WAL")
        with self._writer.begin() as connection:
            migrate(connection)

    async def close(self) -> None:
        """Close every connection and free the file."""
        await self._readers.dispose()
        await self._in_thread(self._writer.dispose)
        self._thread.shutdown()
        if self._lock_file is not None:
            self._lock_file.close()

    async def transact(self, work: Callable[[Source], T]) -> T:
        """See interfaces.Database."""
        with translated():
            return await self._in_thread(lambda: self._transact(work))

    def _transact(self, work: Callable[[Source], T]) -> T:
        self._check_file()
        try:
            with self._writer.begin() as connection:
                return work(SqlSource(connection, self._keys))
        except BaseException:
            self._keys.forget()
            raise

    def _check_file(self) -> None:
        """Refuse to go on with a file that is deleted: it is lost with the last that has it open.

        Raises:
            StoreUnavailable: another file, or none, has its name.
        """
        if _inode(self._path) != self._opened:
            raise StoreUnavailable(f"{self._path} was deleted or replaced; restart the server")

    async def _in_thread(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for reads, in one transaction."""
        self._check_file()
        with translated():
            async with self._readers.begin() as connection:
                yield connection


class PostgresDatabase:
    """A database that several servers share."""

    def __init__(self, url: URL) -> None:
        # Here, because asyncpg comes with the extra `postgres` only.
        from server.stores.sql.hints import PostgresHints

        self._keys = Keys()
        self._engine: AsyncEngine = create_async_engine(
            url,
            pool_size=READERS + 1,
            max_overflow=READERS,
            pool_pre_ping=True,
            pool_timeout=STATEMENT_SECONDS,
            connect_args={
                "timeout": CONNECT_SECONDS,
                "command_timeout": STATEMENT_SECONDS,
                "server_settings": {
                    "application_name": "muster-server",
                    "lock_timeout": f"{STATEMENT_SECONDS * 1000:.0f}",
                    "idle_in_transaction_session_timeout": "60000",
                },
            },
        )
        # The same pool; a read of several statements sees one state, as it does on SQLite.
        self._readers = self._engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self.hints: Hints = PostgresHints(url)

    async def open(self) -> None:
        """Bring the schema up to date.

        Raises:
            StoreUnavailable: it does not answer.
            UnknownSchemaError: it is not ours, or newer than this program.
        """
        with translated():
            async with self._engine.begin() as connection:
                await connection.run_sync(migrate)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def transact(self, work: Callable[[Source], T]) -> T:
        """See interfaces.Database.

        A transaction that lost a deadlock or its connection is tried again: it reads everything
        anew and decides anew, so it does not matter whether the commit had happened.
        """
        with translated():
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_may_succeed_again),
                stop=stop_after_attempt(TRIES),
                wait=wait_random_exponential(0.01, 0.5),
                reraise=True,
            ):
                with attempt:
                    replayed = attempt.retry_state.attempt_number > 1
                    return await self._transact(work, replayed=replayed)
        raise AssertionError("the loop returns or raises")

    async def _transact(self, work: Callable[[Source], T], *, replayed: bool) -> T:
        def with_source(connection: Connection) -> T:
            return work(SqlSource(connection, self._keys, replayed=replayed))

        try:
            async with self._engine.begin() as connection:
                return await connection.run_sync(with_source)
        except BaseException:
            self._keys.forget()
            raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """Give a connection for reads, in one transaction."""
        with translated():
            async with self._readers.begin() as connection:
                yield connection


SqlDatabase = SqliteDatabase | PostgresDatabase


def open_url(url: str) -> SqlDatabase:
    """Return the database an URL names, not opened yet."""
    if url.startswith(SQLITE):
        return SqliteDatabase(Path(url.removeprefix(SQLITE)))  # a path may hold ? # and %
    return PostgresDatabase(make_url(url).set(drivername="postgresql+asyncpg"))


@contextmanager
def translated() -> Iterator[None]:
    """Turn the database's errors into ours.

    Raises:
        StoreUnavailable: locked, full, unreachable, cut: the same again may succeed.
        PoisonError: the same again would fail.
    """
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise StoreUnavailable(_first_line(error)) from error
    except DBAPIError as error:
        if error.connection_invalidated or _is_outage(error):
            raise StoreUnavailable(_first_line(error)) from error
        raise PoisonError(_first_line(error)) from error
    except (sqlite3.OperationalError, sqlite3.InterfaceError) as error:
        raise StoreUnavailable(_first_line(error)) from error
    except sqlite3.Error as error:
        raise PoisonError(_first_line(error)) from error
    except SQLAlchemyError as error:
        raise StoreUnavailable(_first_line(error)) from error
    except TimeoutError as error:
        raise StoreUnavailable("it took too long") from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise PoisonError(str(error)) from error
    except OSError as error:
        raise StoreUnavailable(str(error)) from error


def _is_outage(error: DBAPIError) -> bool:
    """Whether PostgreSQL itself is in trouble: no resources, no locks, going away (53, 55, 57)."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return _is_lost_track(error) or state.startswith(("08", "40", "53", "55P03", "57", "58"))


def _may_succeed_again(error: BaseException) -> bool:
    """Whether a transaction failed for a reason that lies outside it (SQLSTATE 40xxx, 08xxx …)."""
    if isinstance(error, OSError):
        return True
    if not isinstance(error, DBAPIError):
        return False
    state = str(getattr(error.orig, "sqlstate", None) or "")
    return error.connection_invalidated or _is_lost_track(error) or state.startswith(PASSING_STATES)


def _is_lost_track(error: DBAPIError) -> bool:
    """Whether asyncpg itself is confused: a connection broke while it was between two steps."""
    return isinstance(error, InternalError) and not getattr(error.orig, "sqlstate", None)


def _first_line(error: SQLAlchemyError | sqlite3.Error) -> str:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__


def _begin(engine: Engine, statement: str) -> None:
    """Set up SQLite connections; transactions begin with `statement`.

    pysqlite's own transactions begin too late: a read-then-write then loses updates silently.
    """

    @event.listens_for(engine, "connect")
    def _on_connect(connection: sqlite3.Connection, _record: Any) -> None:  # noqa: ANN401 (SQLAlchemy's)
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.exec_driver_sql(statement)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _lock(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock_file = path.with_name(path.name + ".lock").open("a")
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock_file.close()
        raise DatabaseInUseError(path) from None
    return lock_file
