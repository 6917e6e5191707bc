"""The journal: what is acknowledged is there, what is torn is cut, what is damaged is told."""

import asyncio
import errno
import os
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from server.domain.errors import BlockUnreadable, DamagedLog, StoreUnavailable
from server.domain.log import LogLine, pack
from server.stores import log_journal
from server.stores.log_blocks import lines_of
from server.stores.log_journal import LogJournal

KEY, OTHER = (7, 1), (8, 2)


def block(first, *texts):
    return pack(first, [LogLine(5, "stdout", "info", text) for text in texts])


@asynccontextmanager
async def opened(folder, *, end=True):
    """Run a journal; without `end` it stops as if it had been killed."""
    journal = LogJournal(folder)
    await journal.open()
    running = asyncio.ensure_future(journal.run())
    try:
        yield journal
    finally:
        journal.stop()
        await running
        if end:
            await journal.close()
        else:
            journal._thread.submit(journal._close_file).result()


async def text_of(journal, key):
    """Return every line of a log."""
    found = []
    for entry in journal.entries(key):
        whole = replace(entry.block, data=await journal.load(entry))
        found += [line.text for line in lines_of(whole)]
    return found


def only_file(folder):
    (path,) = [path for path in folder.glob("*.log") if path.stat().st_size]
    return path


@pytest.mark.parametrize("end", [True, False], ids=["stopped", "killed"])
async def test_what_is_acknowledged_is_there_after_a_restart(tmp_path, end):
    async with opened(tmp_path, end=end) as journal:
        await journal.append(KEY, [block(1, "one", "two"), block(3, "three")])
        await journal.append(OTHER, [block(1, "else")])
        await journal.append(KEY, [block(4, "four")])
        assert await text_of(journal, KEY) == ["one", "two", "three", "four"]
    async with opened(tmp_path) as journal:
        assert await text_of(journal, KEY) == ["one", "two", "three", "four"]
        assert await text_of(journal, OTHER) == ["else"]
        assert (journal.last_line(KEY), journal.last_line((9, 9))) == (4, 0)
        assert sorted(journal.logs()) == [KEY, OTHER]
        assert [e.block.first_line for e in journal.entries(KEY, 3)] == [3, 4]
        assert journal.damage == []


async def test_all_that_waits_shares_one_fsync(tmp_path, monkeypatch):
    synced = []
    real = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda file: (synced.append(file), real(file)))
    async with opened(tmp_path) as journal:
        await asyncio.gather(*(journal.append((n, 1), [block(1, "x")]) for n in range(1, 200)))
        assert len(synced) <= 2


async def test_a_torn_end_is_cut_wherever_it_was_torn(tmp_path):
    whole = tmp_path / "whole"
    async with opened(whole, end=False) as journal:
        await journal.append(KEY, [block(1, "one")])
        kept = only_file(whole).stat().st_size
        await journal.append(KEY, [block(2, "two")])
    data = only_file(whole).read_bytes()
    for size in range(kept, len(data)):
        torn = tmp_path / str(size)
        torn.mkdir()
        (torn / "0000000001.log").write_bytes(data[:size])
        async with opened(torn) as journal:
            assert await text_of(journal, KEY) == ["one"]
            assert journal.damage == []
            await journal.append(KEY, [block(2, "again")])
        async with opened(torn) as journal:
            assert await text_of(journal, KEY) == ["one", "again"]


async def test_data_that_never_reached_the_disk_is_a_torn_end_too(tmp_path):
    async with opened(tmp_path, end=False) as journal:
        await journal.append(KEY, [block(1, "one")])
        kept = only_file(tmp_path).stat().st_size
        await journal.append(KEY, [block(2, "two"), block(3, "three")])
    path = only_file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:kept] + data[kept:].replace(b"two", b"\0\0\0"))
    async with opened(tmp_path) as journal:
        assert await text_of(journal, KEY) == ["one"]
        assert journal.damage == []


async def test_a_flipped_bit_is_reported_and_not_served(tmp_path):
    """Wherever it is: in a head, a line is missing; in the data, it does not open."""
    whole = tmp_path / "whole"
    async with opened(whole) as journal:
        for number, text in enumerate(("one", "two", "three"), 1):
            await journal.append(KEY, [block(number, text)])
    data = only_file(whole).read_bytes()
    end = len(data) - log_journal._HEAD_BYTES  # behind it lies only the word that all is whole
    for place in range(0, end, 3):
        folder = tmp_path / str(place)
        folder.mkdir()
        flipped = bytearray(data)
        flipped[place] ^= 16
        (folder / "0000000001.log").write_bytes(flipped)
        async with opened(folder) as journal:
            assert len(journal.damage) == 1
            served = []
            try:
                served = await text_of(journal, KEY)
            except DamagedLog:
                continue
            assert len(served) == 2
            assert set(served) < {"one", "two", "three"}


async def test_a_full_disk_refuses_and_works_again_afterwards(tmp_path, monkeypatch):
    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one")])
        real = os.pwrite

        def no_room(file, data, offset):
            real(file, data[: len(data) // 2], offset)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "pwrite", no_room)
        refused = [journal.append(KEY, [block(2, "two")]), journal.append(KEY, [block(3, "x")])]
        for each in refused:
            with pytest.raises(StoreUnavailable, match="No space left"):
                await each
        monkeypatch.setattr(os, "pwrite", real)
        await journal.append(KEY, [block(2, "again", "and on")])
        assert await text_of(journal, KEY) == ["one", "again", "and on"]
    async with opened(tmp_path) as journal:
        assert await text_of(journal, KEY) == ["one", "again", "and on"]
        assert journal.damage == []


async def test_blocks_leave_room_for_the_database(tmp_path, monkeypatch):
    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one")])
        files = len(list(tmp_path.glob("*.log")))
        monkeypatch.setattr(log_journal, "SPARE_BYTES", 2**62)
        monkeypatch.setattr(log_journal, "SPARE_SHARE", 1)
        with pytest.raises(StoreUnavailable, match="No space left"):
            await journal.append(KEY, [block(2, "two")])
        assert len(list(tmp_path.glob("*.log"))) == files
        monkeypatch.undo()
        await journal.append(KEY, [block(2, "two")])
        assert await text_of(journal, KEY) == ["one", "two"]


async def test_files_go_when_nothing_needs_them(tmp_path, monkeypatch):
    monkeypatch.setattr(log_journal, "FILE_BYTES", 1)
    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one"), block(2, "two")])
        await journal.tidy()
        await journal.append(OTHER, [block(1, "else")])
        await journal.append(KEY, [block(3, "three")])
        assert journal.oldest() == [KEY]
        journal.forget(KEY, through=1)
        await journal.tidy()
        assert len([p for p in tmp_path.glob("*.log") if p.stat().st_size]) == 3
        journal.forget(KEY, through=2)
        await journal.tidy()
        assert len([p for p in tmp_path.glob("*.log") if p.stat().st_size]) == 2
        assert await text_of(journal, KEY) == ["three"]
        journal.forget(KEY)
        journal.forget(OTHER)
        await journal.tidy()
        assert journal.size == 0
        assert journal.logs() == []
    async with opened(tmp_path) as journal:
        assert journal.logs() == []


async def test_on_a_full_disk_files_go_before_a_new_one_is_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(log_journal, "FILE_BYTES", 1)
    async with opened(tmp_path) as journal:
        for number in (1, 2):
            await journal.append(KEY, [block(number, "x")])
        oldest = min(tmp_path.glob("*.log"))
        real = os.open

        def full(path, flags, *mode):
            if flags & os.O_CREAT and oldest.exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(path, flags, *mode)

        monkeypatch.setattr(os, "open", full)
        journal.forget(KEY, through=1)
        await journal.tidy()
        assert not oldest.exists()
        assert await text_of(journal, KEY) == ["x"]


async def test_only_the_newest_blocks_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(log_journal, "FRESH_BYTES", 100)
    async with opened(tmp_path) as journal:
        for number in range(1, 20):
            await journal.append(KEY, [block(number, "x" * 30)])
        assert sum(len(entry.fresh) for entry in journal.entries(KEY)) <= 100
        assert await text_of(journal, KEY) == ["x" * 30] * 19


async def test_a_block_whose_file_has_gone_cannot_be_read_and_one_kept_elsewhere_is_not_here(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(log_journal, "FRESH_BYTES", 0)
    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one"), block(2, "two")])
        one, two = journal.entries(KEY)
        only_file(tmp_path).unlink()
        with pytest.raises(BlockUnreadable):
            await journal.load(one)
        journal.forget(KEY, through=1)
        with pytest.raises(FileNotFoundError):
            await journal.load(one)
        with pytest.raises(BlockUnreadable):
            await journal.load(two)


async def test_while_the_whole_folder_is_away_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(log_journal, "FRESH_BYTES", 0)
    async with opened(tmp_path / "journal") as journal:
        await journal.append(KEY, [block(1, "one")])
        (entry,) = journal.entries(KEY)
        (tmp_path / "journal").rename(tmp_path / "away")
        with pytest.raises(StoreUnavailable) as refused:
            await journal.load(entry)
        assert not isinstance(refused.value, BlockUnreadable)
        (tmp_path / "away").rename(tmp_path / "journal")
        assert await text_of(journal, KEY) == ["one"]


@pytest.mark.parametrize(("number", "lost"), [(5, True), (13, False), (24, False)])
async def test_a_disk_that_fails_may_have_lost_a_block_and_a_lack_of_files_has_not(
    tmp_path, monkeypatch, number, lost
):
    monkeypatch.setattr(log_journal, "FRESH_BYTES", 0)

    def fail(*_place):
        raise OSError(number, os.strerror(number))

    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one")])
        (entry,) = journal.entries(KEY)
        monkeypatch.setattr(log_journal, "_read", fail)
        with pytest.raises(StoreUnavailable) as refused:
            await journal.load(entry)
        assert isinstance(refused.value, BlockUnreadable) is lost
        monkeypatch.undo()
        assert await text_of(journal, KEY) == ["one"]


async def test_a_torn_head_in_the_last_group_is_a_torn_end_too(tmp_path):
    """After a loss of power any page of the last group may be missing."""
    async with opened(tmp_path, end=False) as journal:
        await journal.append(KEY, [block(1, "one")])
        kept = only_file(tmp_path).stat().st_size
        await journal.append(KEY, [block(2, "two"), block(3, "three"), block(4, "four")])
    path = only_file(tmp_path)
    data = path.read_bytes()
    heads = [place for place in range(kept, len(data)) if data.startswith(b"\xf1\x0cMB", place)]
    assert heads[0] == kept
    for head in heads:
        path.write_bytes(data[:head] + bytes(40) + data[head + 40 :])
        for leftover in tmp_path.glob("*.log"):
            if leftover != path:
                leftover.unlink()
        async with opened(tmp_path) as journal:
            assert journal.damage == []
            served = await text_of(journal, KEY)
            assert served == ["one", "two", "three"][: 1 + heads.index(head)]


async def test_a_disk_that_fails_in_one_place_loses_no_more_than_that(tmp_path, monkeypatch):
    async with opened(tmp_path) as journal:
        for number in range(1, 11):
            await journal.append(KEY, [block(number, f"{number} " + "x" * 3000)])
    path, real = only_file(tmp_path), os.pread

    def unreadable(_path):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def failing(file, size, offset):
        if offset <= 16_000 < offset + size:
            unreadable(path)
        return real(file, size, offset)

    monkeypatch.setattr(type(path), "read_bytes", unreadable)
    monkeypatch.setattr(os, "pread", failing)
    async with opened(tmp_path) as journal:
        assert journal.damage
        numbers = [entry.block.first_line for entry in journal.entries(KEY)]
        assert (numbers[:3], numbers[-3:]) == ([1, 2, 3], [8, 9, 10])


async def test_a_file_that_a_start_cannot_read_is_neither_cut_nor_deleted(tmp_path, monkeypatch):
    async with opened(tmp_path, end=False) as journal:
        await journal.append(KEY, [block(1, "one"), block(2, "two")])
    path = only_file(tmp_path)
    written = path.read_bytes()

    def fail(*_place):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(type(path), "read_bytes", fail)
        broken.setattr(os, "pread", fail)
        async with opened(tmp_path) as journal:
            assert journal.logs() == []
            await journal.tidy()
    aside = path.with_name(f"{path.name}.damaged")
    assert aside.read_bytes() == written
    for left in tmp_path.glob("*.log"):
        left.unlink()
    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one")])
        assert only_file(tmp_path) > path, "its number is not used again"
        await journal.tidy()
    assert aside.read_bytes() == written


async def test_the_file_of_a_block_that_was_given_up_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(log_journal, "FILE_BYTES", 1)
    async with opened(tmp_path) as journal:
        await journal.append(KEY, [block(1, "one")])
        path = only_file(tmp_path)
        written = path.read_bytes()
        journal.give_up(journal.entries(KEY)[0])
        journal.forget(KEY)
        await journal.tidy()
    assert path.with_name(f"{path.name}.damaged").read_bytes() == written


async def test_a_damaged_head_before_the_last_group_is_reported(tmp_path):
    async with opened(tmp_path, end=False) as journal:
        await journal.append(KEY, [block(1, "one")])
        kept = only_file(tmp_path).stat().st_size
        await journal.append(OTHER, [block(1, "gone")])
        await journal.append(KEY, [block(2, "two"), block(3, "three")])
    path = only_file(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:kept] + bytes(40) + data[kept + 40 :])
    async with opened(tmp_path) as journal:
        assert journal.damage == [f"{path.name}, byte {kept}"]
        assert await text_of(journal, KEY) == ["one", "two", "three"]
        assert journal.entries(OTHER) == []


async def test_a_file_that_is_full_is_followed_by_another_also_when_nobody_tidies(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(log_journal, "FILE_BYTES", 200)
    async with opened(tmp_path) as journal:
        for number in range(1, 10):
            await journal.append(KEY, [block(number, "x" * 60)])
        assert max(path.stat().st_size for path in tmp_path.glob("*.log")) < 500
        assert await text_of(journal, KEY) == ["x" * 60] * 9
    async with opened(tmp_path) as journal:
        assert await text_of(journal, KEY) == ["x" * 60] * 9
        assert journal.damage == []


async def test_a_deleted_folder_refuses_what_comes(tmp_path):
    async with opened(tmp_path / "j") as journal:
        await journal.append(KEY, [block(1, "one")])
        for path in (tmp_path / "j").iterdir():
            path.unlink()
        with pytest.raises(StoreUnavailable, match="deleted"):
            await journal.append(KEY, [block(2, "two")])
