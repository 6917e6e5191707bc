"""Every implementation of the stores, for contract suites."""

import pytest
from sqlalchemy import text, update

from server.stores.sql.database import PostgresDatabase, SqliteDatabase
from server.stores.sql.tables import identity, metadata, sequences
from tests.fakes.memory_source import MemoryDatabase
from tests.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server: one a worker, started when the first test asks."""
    server = PostgresServer()
    yield server
    server.stop()


@pytest.fixture
async def memory():
    return MemoryDatabase()


@pytest.fixture
async def sqlite(tmp_path):
    database = SqliteDatabase(tmp_path / "muster.db")
    await database.open()
    yield database
    await database.close()


@pytest.fixture(scope="session")
def opened():
    """Names of databases that have our schema already, by their server."""
    return {}


@pytest.fixture
async def postgresql(postgres, opened):
    """A database that is emptied rather than made: that takes a tenth of the time."""
    name = opened.get(postgres) or await postgres.create()
    database = PostgresDatabase(postgres.url(name))
    if postgres not in opened:
        await database.open()
        opened[postgres] = name
    async with database._engine.begin() as connection:
        kept = [t.name for t in metadata.sorted_tables if t not in (identity, sequences)]
        await connection.execute(text(f"TRUNCATE {', '.join(kept)}"))
        await connection.execute(update(sequences).values(next=0))
    yield database
    await database.close()


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def database(request):
    """Every Database."""
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["sqlite", "postgresql"])
def sql_database(request):
    """Every SQL database."""
    return request.getfixturevalue(request.param)
