"""Nothing waits for an owner's files on a disk that hangs."""

import asyncio
import threading

from agent import measuring
from agent.measuring import Measuring


async def test_a_folder_that_hangs_delays_neither_a_heartbeat_for_long_nor_the_end(
    tmp_path, monkeypatch
):
    let_go, began = threading.Event(), threading.Event()
    readers = []

    def hangs(_folder):
        readers.append(threading.current_thread())
        began.set()
        let_go.wait(60)
        return {"late": "1"}, []

    monkeypatch.setattr(measuring, "_READ_SECONDS", 0.01)
    monkeypatch.setattr(measuring.own_metrics, "read", hangs)
    measured = await Measuring(tmp_path, tmp_path).if_due(0)
    assert measured is not None
    assert "late" not in measured.custom_metrics
    assert await asyncio.to_thread(began.wait, 10)
    assert [reader.daemon for reader in readers] == [True]  # the program's end does not join it
    let_go.set()


async def test_files_that_could_not_be_read_are_read_again(tmp_path, monkeypatch):
    def fails(_folder):
        raise ValueError("odd")

    monkeypatch.setattr(measuring, "_EVERY_SECONDS", 0.0)
    made = Measuring(tmp_path, tmp_path)
    (tmp_path / "own.prom").write_text("answer 42\n")
    with monkeypatch.context() as broken:
        broken.setattr(measuring.own_metrics, "read", fails)
        measured = await made.if_due(0)
    assert measured is not None
    assert "answer" not in measured.custom_metrics
    measured = await made.if_due(0)
    assert measured is not None
    assert measured.custom_metrics["answer"] == "42"
