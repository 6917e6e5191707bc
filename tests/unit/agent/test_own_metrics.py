"""Measurements from files of the host's owner."""

import os

from agent import own_metrics
from agent.own_metrics import FILE_BYTES, FILES, LIMIT


def test_lines_of_all_files_are_taken_and_the_first_of_a_name_counts(tmp_path):
    (tmp_path / "b.prom").write_text("room 1\nother -2.5e3 1700000000000\n")
    (tmp_path / "a.prom").write_text(
        '# HELP room Degrees.\n\nroom 21.5\r\nfailed{shelf="2 b"}\t1\nns:up.x 0\n'
    )
    (tmp_path / "c.txt").write_text("not_read 1\n")
    found, complaints = own_metrics.read(tmp_path)
    assert found == {"room": "21.5", 'failed{shelf="2 b"}': "1", "ns:up.x": "0", "other": "-2.5e3"}
    assert complaints == []


def test_what_is_no_measurement_is_named_and_the_rest_taken(tmp_path):
    (tmp_path / "a.prom").write_text(
        "good 1\nword up\nodd nan\nno\n7up 7\nnull\0 1\nlong" + "g" * 300 + " 1\nbetter 2\n"
    )
    found, complaints = own_metrics.read(tmp_path)
    assert found == {"good": "1", "better": "2"}
    assert complaints == [
        f"{tmp_path}/a.prom: line {number} is not NAME VALUE" for number in range(2, 8)
    ]


def test_what_is_no_readable_file_is_named_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.prom")
    (tmp_path / "b.prom").mkdir()
    (tmp_path / "c.prom").write_bytes(b"\xff 1\n")
    (tmp_path / "d.prom").write_text("x" * (FILE_BYTES + 1))
    (tmp_path / "e.prom").symlink_to("nowhere")
    (tmp_path / "f.prom").write_text("good 1\n")
    found, complaints = own_metrics.read(tmp_path)
    assert found == {"good": "1"}
    assert [complaint.split(":")[0][-6:] for complaint in complaints] == [
        *("a.prom", "b.prom", "c.prom", "d.prom", "e.prom")
    ]
    assert own_metrics.read(tmp_path / "nowhere") == (
        {},
        [f"{tmp_path}/nowhere: No such file or directory"],
    )


def test_there_are_only_so_many(tmp_path):
    (tmp_path / "00.prom").write_text("".join(f"m{n} {n}\n" for n in range(LIMIT + 1)))
    for number in range(1, FILES + 1):
        (tmp_path / f"{number:02}.prom").write_text("")
    found, complaints = own_metrics.read(tmp_path)
    assert len(found) == LIMIT
    assert complaints == [
        f"{tmp_path}: more than {FILES} files",
        f"{tmp_path}: more than {LIMIT} measurements",
    ]
