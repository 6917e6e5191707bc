"""What a SecretStore promises: our own over every database, and a real OpenBao."""

import asyncio
import uuid

import httpx2
import pytest

from server.domain.errors import NotFound, SecretsRefused, StoreUnavailable
from server.domain.ledger import Ledger
from server.domain.policy import Policy
from server.domain.submitting import CreateTask, NewTask
from server.domain.task import TaskSpec
from server.sealing import KeyVersion, Sealer
from server.secret_rewrapper import SecretRewrapper
from server.secret_store import OwnSecrets, VaultSecrets
from server.stores.sql.reader import SqlReader
from tests.openbao import openbao

OLD, NEW = KeyVersion("old", b"o" * 32), KeyVersion("new", b"n" * 32)
NOW = 1_700_000_000_000


class DirectWriter:
    """Decides each command in a transaction of its own."""

    def __init__(self, database):
        self._database = database

    async def submit(self, command, *, new_work=False):
        def work(source):
            ledger = Ledger(source, NOW, Policy())
            answer = command.decide(ledger)
            ledger.finish()
            return answer

        return await self._database.transact(work)


@pytest.fixture(scope="session")
def bao(tmp_path_factory):
    with openbao(tmp_path_factory.mktemp("bao")) as server:
        yield server


def own(database, *keys):
    sealer = Sealer(list(keys)) if keys else None
    return OwnSecrets(DirectWriter(database), SqlReader(database), sealer)


@pytest.fixture(params=["sqlite", "postgresql", "openbao"])
def every(request):
    """Every SecretStore, empty."""
    if request.param != "openbao":
        return own(request.getfixturevalue(request.param), OLD)
    address, token_file = request.getfixturevalue("bao")
    mount = f"kv-{uuid.uuid4().hex}"
    httpx2.post(
        f"{address}/v1/sys/mounts/{mount}",
        headers={"X-Vault-Token": token_file.read_text()},
        json={"type": "kv", "options": {"version": "2"}},
    ).raise_for_status()
    return VaultSecrets(address, mount, token_file)


@pytest.fixture
async def store(every):
    yield every
    await every.close()


async def test_a_value_comes_back_in_its_namespace_alone(store):
    await store.put("a", "password", "hunter22", "root")
    await store.put("b", "password", "another1", "root")
    assert await store.values("a", ["password", "absent"]) == {"password": "hunter22"}
    assert await store.values("b", ["password"]) == {"password": "another1"}


async def test_the_newest_value_counts_and_versions_grow(store):
    first = await store.put("a", "key", "value-1", "root")
    second = await store.put("a", "key", "value-2 ü\n", "eve")
    assert second.version == first.version + 1
    assert await store.values("a", ["key"]) == {"key": "value-2 ü\n"}


async def test_secrets_are_listed_by_name_without_values(store):
    await store.put("a", "z.key", "value-1", "root")
    await store.put("a", "a_key", "value-2", "root")
    await store.put("b", "other", "value-3", "root")
    listed = await store.known("a")
    assert [(each.name, each.version) for each in listed] == [("a_key", 1), ("z.key", 1)]
    assert "value" not in str(listed)


async def test_what_is_missing_is_told(store):
    await store.put("a", "here", "value-1", "root")
    assert await store.missing("a", ["there", "here", "gone"]) == ["gone", "there"]
    assert await store.missing("a", ["here"]) == []


async def test_a_deleted_secret_is_gone(store):
    await store.put("a", "key", "value-1", "root")
    await store.delete("a", "key")
    assert await store.values("a", ["key"]) == {}
    with pytest.raises(NotFound):
        await store.delete("a", "key")


# ---- our own


async def test_two_who_put_at_once_both_succeed(sql_database):
    store = own(sql_database, OLD)
    await asyncio.gather(*(store.put("a", "key", f"value-{n}", "root") for n in range(3)))
    (known,) = await store.known("a")
    assert known.version == 3
    assert (await store.values("a", ["key"]))["key"].startswith("value-")


async def test_without_a_key_nothing_is_kept(sql_database):
    with pytest.raises(SecretsRefused, match="--secret-keys"):
        await own(sql_database).put("a", "key", "value-1", "root")
    assert await own(sql_database, OLD).known("a") == []


async def test_a_row_in_anothers_place_is_not_opened(sql_database):
    store, reader = own(sql_database, OLD), SqlReader(sql_database)
    await store.put("a", "first", "value-1", "root")
    await store.put("a", "second", "value-2", "root")
    _, second = await reader.secrets("a")

    def swap(source):
        ledger = Ledger(source, NOW, Policy())
        mine = source.secret("a", "first")
        mine.wrapped, mine.data = second.wrapped, second.data
        ledger.touch_secret(mine)

    await sql_database.transact(swap)
    with pytest.raises(StoreUnavailable, match="another's"):
        await store.values("a", ["first"])


async def test_after_a_rotation_everything_is_under_the_new_key(sql_database):
    before = own(sql_database, OLD)
    for number in range(120):
        await before.put("a", f"key-{number}", f"value-{number}", "root")
    reader = SqlReader(sql_database)
    rewrapper = SecretRewrapper(DirectWriter(sql_database), reader, Sealer([NEW, OLD]))
    assert await rewrapper.rewrap() == 120
    assert await rewrapper.rewrap() == 0
    after = own(sql_database, NEW)  # the old one is gone
    values = await after.values("a", [f"key-{number}" for number in range(120)])
    assert values == {f"key-{number}": f"value-{number}" for number in range(120)}


async def test_a_secret_whose_key_is_gone_stays_and_stops_nobody(sql_database):
    await own(sql_database, OLD).put("a", "lost", "value-1", "root")
    store = own(sql_database, NEW)
    await store.put("a", "mine", "value-2", "root")
    rewrapper = SecretRewrapper(DirectWriter(sql_database), SqlReader(sql_database), Sealer([NEW]))
    assert await rewrapper.rewrap() == 0
    assert await store.values("a", ["mine"]) == {"mine": "value-2"}
    with pytest.raises(StoreUnavailable, match="is gone"):
        await store.values("a", ["lost"])


# ---- an outside store


async def test_a_store_that_refuses_or_is_away_is_told_without_a_secret(bao, tmp_path):
    address, _ = bao
    wrong = tmp_path / "token"
    wrong.write_text("nobody")
    store = VaultSecrets(address, "secret", wrong)
    with pytest.raises(StoreUnavailable, match="403") as refused:
        await store.put("a", "key", "hunter22", "root")
    assert "hunter22" not in str(refused.value)
    await store.close()
    away = VaultSecrets("http://127.0.0.1:1", "secret", wrong)
    with pytest.raises(StoreUnavailable):
        await away.values("a", ["key"])
    await away.close()


async def test_more_names_than_a_statement_takes_are_looked_for(sql_database):
    store = own(sql_database, OLD)
    await store.put("default", "db", "value-1", "root")
    names = [f"n{number}" for number in range(70_000)]
    assert await store.missing("default", ["db", *names]) == sorted(names)


async def test_what_open_tasks_brought_along_comes_under_the_new_key(sql_database):
    writer = DirectWriter(sql_database)
    for number in range(3):
        sealed = Sealer([OLD]).seal_all({"A": f"value-{number}"}, "default")
        new = NewTask("x", TaskSpec(("true",), sealed=sealed))
        await writer.submit(CreateTask("default", f"t{number}", new, ""))
    await writer.submit(CreateTask("default", "t9", NewTask("x", TaskSpec(("true",))), ""))
    reader = SqlReader(sql_database)
    rewrapper = SecretRewrapper(writer, reader, Sealer([NEW, OLD]))
    assert await rewrapper.rewrap_tasks() == 3
    assert await rewrapper.rewrap_tasks() == 0
    task = (await reader.task("default", "t1")).task
    opened = Sealer([NEW]).open_all(TaskSpec.from_json(task.spec).sealed, "default")
    assert opened == {"A": "value-1"}
    assert await SecretRewrapper(writer, reader, Sealer([OLD])).rewrap_tasks() == 0  # it is gone
