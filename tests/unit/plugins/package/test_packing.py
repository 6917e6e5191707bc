import os
import shutil
import socket
import tarfile

import pytest

from plugins.package.archive import Limits
from plugins.package.packing import pack
from plugins.package.refusal import PackageRefused

MANIFEST = """
id = "greet"
version = "1.0.0"
type = "step"
protocol = "simple"
entry_points = {any = "main.sh"}
"""


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "greet"
    folder.mkdir()
    (folder / "plugin.toml").write_text(MANIFEST)
    (folder / "main.sh").write_text("#!/bin/sh\n")
    (folder / "main.sh").chmod(0o755)
    return folder


def refusal(folder, target=None, **limits):
    target = target or folder.parent / "greet.tar.gz"
    with pytest.raises(PackageRefused) as refused:
        pack(folder, target, Limits(**limits))
    assert [path.name for path in folder.parent.iterdir()] == ["greet"]
    return str(refused.value)


def test_same_files_make_the_same_bytes(folder, tmp_path):
    for name in ("b", "a", "lib/z", "lib/y"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    first = pack(folder, tmp_path / "first.tar.gz")
    copy = tmp_path / "elsewhere/other"
    shutil.copytree(folder, copy)
    for path in copy.rglob("*"):
        os.utime(path, (1, 1))
    (copy / "main.sh").chmod(0o700)

    second = pack(copy, tmp_path / "second.tar.gz")

    assert second == first
    assert (tmp_path / "first.tar.gz").read_bytes() == (tmp_path / "second.tar.gz").read_bytes()


def test_order_times_and_owners_are_fixed(folder, tmp_path):
    for name in ("z", "a/z", "a/b"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)
    pack(folder, tmp_path / "greet.tar.gz")

    data = (tmp_path / "greet.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "greet.tar.gz") as archive:
        members = archive.getmembers()

    assert data[4:8] == bytes(4)  # gzip's own time
    assert [each.name for each in members] == ["plugin.toml", "a/b", "a/z", "main.sh", "z"]
    assert {(each.mtime, each.uid, each.gid, each.uname) for each in members} == {(0, 0, 0, "")}


def test_other_bytes_or_a_bit_to_run_make_another_address(folder, tmp_path):
    (folder / "more").write_text("1")
    addresses = {pack(folder, tmp_path / "1.tar.gz").sha256}
    (folder / "more").write_text("2")
    addresses.add(pack(folder, tmp_path / "2.tar.gz").sha256)
    (folder / "more").chmod(0o755)
    addresses.add(pack(folder, tmp_path / "3.tar.gz").sha256)

    assert len(addresses) == 3


def test_what_is_no_part_of_a_plugin_is_left_out(folder, tmp_path):
    for name in (".git/config", "__pycache__/x.pyc", "lib/__pycache__/y", "lib/z.pyc", ".DS_Store"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")

    assert pack(folder, tmp_path / "greet.tar.gz").files == 2


def test_links_and_special_files_are_named(folder):
    (folder / "link").symlink_to("main.sh")
    (folder / "folder-link").symlink_to("/etc")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))

    said = refusal(folder)

    for name in ("link", "folder-link", "socket"):
        assert f"{name}: is a link or a special file" in said


def test_names_that_not_every_system_has_are_named(folder):
    (folder / "a:b").write_text("")
    (folder / "MAIN.SH").write_text("")

    said = refusal(folder)

    assert "'a:b': has a letter" in said
    assert "collides with" in said


def test_path_that_is_too_long_is_named(folder):
    (folder / ("x" * 200)).write_text("")

    assert f"{'x' * 200}: does not fit" in refusal(folder)


def test_package_may_not_lie_in_its_own_folder(folder):
    assert "is inside" in refusal(folder, folder / "greet.tar.gz")


def test_program_has_to_be_one(folder):
    (folder / "main.sh").chmod(0o644)

    assert "entry_points.any: main.sh is not executable" in refusal(folder)


def test_folder_without_a_manifest_is_no_plugin(folder):
    (folder / "plugin.toml").unlink()

    assert "plugin.toml: is not in" in refusal(folder)


def test_limits_hold_for_packing_too(folder):
    assert "more than 1 files" in refusal(folder, files=1)
    assert "more than 10 bytes" in refusal(folder, unpacked=10)
    assert "larger than 10 bytes" in refusal(folder, packed=10)


def test_package_that_is_there_stays_when_packing_fails(folder, tmp_path):
    target = tmp_path / "greet.tar.gz"
    pack(folder, target)
    before = target.read_bytes()
    (folder / "link").symlink_to("main.sh")

    with pytest.raises(PackageRefused):
        pack(folder, target)
    assert target.read_bytes() == before
