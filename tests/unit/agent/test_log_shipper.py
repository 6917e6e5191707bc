"""A log goes up in batches, from wherever the server stands, and gives its disk back."""

import zlib

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import log_shipper
from agent.log_lines import LONGEST_LINE
from agent.log_reader import Place, summarize
from agent.log_shipper import LogShipper
from agent.spool import POSITION, RECORD, AttemptFolder
from generated.stream.v1 import stream_pb2
from tests.blocks import chunks_in

GAP = grpc.StatusCode.FAILED_PRECONDITION.value[0]
BUSY = grpc.StatusCode.UNAVAILABLE.value[0]


@pytest.fixture
def folder(tmp_path):
    return AttemptFolder(tmp_path)


def spool(folder, *segments):
    """Writes records of standard output, a list for each segment."""
    for number, records in enumerate(segments):
        with folder.segment(number).open("wb") as file:
            for record in records:
                file.write(RECORD.pack(5, 1, len(record)) + record)


def shipper(folder, ended=True):
    made = LogShipper("lease", "task", folder)
    if ended:
        made.end()
        made.total = summarize(folder, made.reader.place)
    return made


def ack(through, code=0):
    return stream_pb2.LogAck(acked_through=through, error_code=code)


def numbers(batch):
    return [chunk.line_number for chunk in chunks_in(batch.block)]


class Server:
    """Takes batches the way the real one does."""

    def __init__(self):
        self.lines = []

    def take(self, batch):
        first = batch.block.first_line
        if first > len(self.lines) + 1:
            return ack(len(self.lines), GAP)
        if first == len(self.lines) + 1:
            self.lines += [c.raw or c.content.encode() for c in chunks_in(batch.block)]
        return ack(len(self.lines))


def ship(log, server):
    while (batch := log.next_batch()) is not None:
        log.acknowledge(server.take(batch))


def test_invalid_utf8_shows_as_replacement_and_keeps_its_bytes(folder):
    spool(folder, [b"ok \xff\xfe end\nplain \xc3\xbc\n"])
    broken, plain = chunks_in(shipper(folder).next_batch().block)
    assert broken.content == "ok \ufffd\ufffd end"
    assert broken.raw == b"ok \xff\xfe end"
    assert (plain.content, plain.raw) == ("plain ü", b"")


def test_pieces_of_a_long_line_are_marked(folder):
    spool(folder, [b"x" * (LONGEST_LINE + 1), b"\nshort"])
    log = shipper(folder)
    chunks = chunks_in(log.next_batch().block)
    log.acknowledge(ack(len(chunks)))
    chunks += chunks_in(log.next_batch().block)
    assert [chunk.continued for chunk in chunks] == [True, False, False]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks hold one record of `lines(n)`, so that a few lines make many."""
    monkeypatch.setattr(log_shipper, "_BLOCK_BYTES", 1)


def lines(count):
    return b"line\n" * count


def test_blocks_are_bounded_and_only_a_few_are_in_flight(folder):
    spool(folder, [b"x" * 63 + b"\n"] * 30_000)
    log = shipper(folder)
    first = log.next_batch().block
    assert first.first_line == 1
    assert 256 * 1024 <= first.unpacked_bytes < 257 * 1024
    assert log.next_batch() is None  # the server's position is not known yet
    log.acknowledge(ack(first.lines))
    ahead = [log.next_batch() for _ in range(5)]
    each = first.lines
    assert [batch.block.first_line for batch in ahead[:4]] == [n * each + 1 for n in range(1, 5)]
    assert ahead[4] is None


def test_after_a_break_it_goes_on_from_the_servers_position(folder, small_blocks):
    spool(folder, [lines(1000), lines(1000), lines(500)])
    log = shipper(folder)
    log.next_batch()
    log.reconnect()
    assert numbers(log.next_batch())[0] == 1
    log.acknowledge(ack(2200))  # batches of an older session had arrived
    assert numbers(log.next_batch()) == list(range(2201, 2501))
    log.acknowledge(ack(2500))
    assert log.done


def test_a_gap_is_filled_from_the_line_the_server_names(folder, small_blocks):
    spool(folder, [lines(1000)] * 5)
    log = shipper(folder)
    log.next_batch()
    log.acknowledge(ack(1000))
    second, third = log.next_batch(), log.next_batch()
    assert (numbers(second)[0], numbers(third)[0]) == (1001, 2001)
    assert log.acknowledge(ack(1000, BUSY)) is not None
    log.acknowledge(ack(1000, GAP))  # the third, because the second was not taken
    assert log.next_batch() is None  # the server is left alone for a while
    log.resume()
    assert numbers(log.next_batch())[0] == 1001


def test_blocks_say_what_their_lines_amount_to(folder):
    spool(folder, [b"one\n\xff\ntw", b"o\n"])
    block = shipper(folder).next_batch().block
    text = b"one\n\xff\ntwo\n"
    assert (block.lines, block.bytes, block.crc32) == (3, len(text), zlib.crc32(text))
    assert (block.first_at, block.last_at) == (5, 5)
    assert block.data_crc32 == zlib.crc32(block.data)


def test_a_batch_refused_where_the_server_stands_ends_the_upload(folder):
    spool(folder, [b"line\n"])
    log = shipper(folder)
    log.next_batch()
    log.acknowledge(ack(0, GAP))
    assert log.done
    assert log.next_batch() is None


def test_a_batch_of_which_nothing_is_taken_ends_the_upload(folder):
    spool(folder, [b"line\n"])
    log = shipper(folder)
    log.next_batch()
    log.acknowledge(ack(0))  # the server has closed the log; sent again it would say the same
    assert log.done
    assert log.next_batch() is None


def test_a_batch_that_is_taken_in_part_is_sent_from_there(folder):
    spool(folder, [b"line\n" * 3])
    log = shipper(folder)
    log.next_batch()
    log.acknowledge(ack(2))
    assert numbers(log.next_batch()) == [3]


def test_a_log_that_is_refused_gives_its_disk_back_as_it_grows(folder):
    spool(folder, [b"one\n"])
    log = shipper(folder, ended=False)
    log.next_batch()
    log.acknowledge(ack(0, grpc.StatusCode.NOT_FOUND.value[0]))
    spool(folder, [b"one\n"], [b"two\n"], [b"three\n"])
    assert log.next_batch() is None
    assert folder.segments() == [2]


def test_acknowledged_segments_go_and_a_new_session_goes_on(folder):
    spool(folder, [b"one\ntw", b"o\nthr"], [b"ee\nfour\n"], [b"five"])
    server = Server()
    first = shipper(folder, ended=False)
    ship(first, server)
    assert server.lines == [b"one", b"two", b"three", b"four"]
    assert folder.segments() == [2]
    second = shipper(folder)
    ship(second, server)
    assert server.lines[4:] == [b"five"]
    assert second.done
    summary = second.summary()
    assert (summary.lines, summary.bytes) == (5, len("one\ntwo\nthree\nfour\nfive\n"))


def test_half_a_record_is_not_read(folder):
    spool(folder, [b"whole\n"])
    with folder.segment(0).open("ab") as file:
        file.write(RECORD.pack(5, 1, 100) + b"torn")
    server = Server()
    log = shipper(folder)
    ship(log, server)
    assert server.lines == [b"whole"]
    assert log.done


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5), max_size=5),
    st.lists(st.sampled_from(["send", "answer", "break", "restart", "refuse"]), max_size=40),
)
def test_any_breaks_leave_neither_holes_nor_repeats(tmp_path_factory, segments, deeds):
    folder = AttemptFolder(tmp_path_factory.mktemp("spool"))
    spool(folder, *segments)
    server, answers = Server(), []
    log = shipper(folder)
    for deed in deeds:
        if deed == "send" and (batch := log.next_batch()) is not None:
            answers.append(server.take(batch))
        elif deed == "answer" and answers:
            log.acknowledge(answers.pop(0))
        elif deed == "refuse" and answers:
            answers[0] = ack(len(server.lines), BUSY)
        elif deed == "break":
            answers.clear()
            log.reconnect()
        elif deed == "restart":
            answers.clear()
            log = shipper(folder)
        log.resume()
    while answers:
        log.acknowledge(answers.pop(0))
    log.resume()
    ship(log, server)
    data = b"".join(record for records in segments for record in records)
    expected = data.split(b"\n")
    assert server.lines == (expected if expected[-1] else expected[:-1])
    assert log.done


def test_a_missing_folder_is_an_empty_log(folder):
    folder.path.rmdir()
    assert shipper(folder).done


def test_a_segment_goes_also_when_the_next_one_is_still_empty(folder):
    spool(folder, [b"one\n", b"two\n"])
    log = shipper(folder, ended=False)
    log.acknowledge(ack(log.next_batch().block.lines))
    folder.segment(1).touch()  # as the supervisor does on a full disk
    assert log.next_batch() is None
    assert folder.segments() == [1]
    again = shipper(folder, ended=False)
    spool(folder, [], [b"three\n"])
    assert numbers(again.next_batch()) == [3]


SPOILT = {
    "nothing known": {"a": 1},
    "no place": {"place": 3, "acked": 0},
    "an empty place": {"place": {}, "acked": 0},
    "a word for a number": {"place": Place().to_json() | {"segment": "x"}, "acked": 0},
    "less than nothing": {"place": Place().to_json() | {"offset": -1}, "acked": 0},
    "too large a number": {"place": Place().to_json() | {"offset": 1 << 70}, "acked": 0},
    "an unknown stream": {"place": Place().to_json() | {"partials": {"9": [1, ""]}}, "acked": 0},
    "no number of lines": {"place": Place().to_json(), "acked": None},
}


@pytest.mark.parametrize("saved", SPOILT.values(), ids=SPOILT)
def test_a_place_that_a_task_spoilt_is_the_beginning(folder, saved):
    spool(folder, [b"one\n"])
    folder.write(POSITION, saved)
    log = shipper(folder)
    assert numbers(log.next_batch()) == [1]


@pytest.mark.parametrize("head", [(1 << 63, 1, 2), (5, 9, 2), (5, 1, 0xFFFFFFFF)])
def test_a_record_that_a_task_made_up_ends_the_output(folder, head):
    spool(folder, [b"one\n"])
    with folder.segment(0).open("ab") as file:
        file.write(RECORD.pack(*head) + b"x\n")
    log = shipper(folder)
    assert numbers(log.next_batch()) == [1]
    log.acknowledge(ack(1))
    assert log.done
