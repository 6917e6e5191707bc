"""The database is the file that was named, and stays it."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from server.database_commands import run
from server.domain.errors import StoreUnavailable
from server.settings import Settings
from server.stores.sql.database import open_url


@pytest.mark.parametrize("name", ["a#b", "a?mode=rw", "a%20b", "a b", "ü"])
async def test_any_folder_name_is_taken_as_it_is(tmp_path, name):
    settings = Settings(data_dir=tmp_path / name)
    settings.data_dir.mkdir()
    database = open_url(settings.database_url)
    await database.open()
    await database.close()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name / "muster.db").exists()
    assert run(["check"], settings) == 0
    target = tmp_path / "copy"
    assert run(["backup", str(target)], settings) == 0
    with closing(sqlite3.connect(target)) as copy:
        assert copy.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] > 10


async def test_a_database_without_our_tables_is_not_backed_up(tmp_path, capsys):
    settings = Settings(data_dir=tmp_path)
    sqlite3.connect(settings.sqlite_file).close()
    assert run(["backup", str(tmp_path / "copy")], settings) == 1
    assert "no tables of Muster's" in capsys.readouterr().err
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_nothing_is_acknowledged_into_a_file_that_is_gone(tmp_path, how):
    settings = Settings(data_dir=tmp_path / "data")
    database = open_url(settings.database_url)
    await database.open()
    await database.transact(lambda source: source.new_key())
    shutil.rmtree(settings.data_dir)
    if how == "replaced":
        settings.data_dir.mkdir()
        settings.sqlite_file.touch()
    with pytest.raises(StoreUnavailable, match="deleted or replaced"):
        await database.transact(lambda source: source.new_key())
    await database.close()
