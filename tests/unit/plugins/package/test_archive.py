"""Archives that mean harm, or are broken: refused, and nothing is left of them."""

import gzip
import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import plugins
from plugins.package.archive import Limits
from plugins.package.inspection import inspect
from plugins.package.packing import pack
from plugins.package.paths import Taken, path_problem
from plugins.package.refusal import PackageRefused
from plugins.package.unpacking import unpack

ROOT = Path(plugins.__file__).parents[1]

MANIFEST = b"""
id = "greet"
version = "1.0.0"
type = "step"
protocol = "simple"
entry_points = {any = "main.sh"}
"""


def entry(name, data=b"", *, kind=tarfile.REGTYPE, mode=0o644, **fields):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.type = kind
    info.mode = mode
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def good():
    return [entry("plugin.toml", MANIFEST), entry("main.sh", b"#!/bin/sh\n", mode=0o755)]


def tar(entries, tar_format=tarfile.USTAR_FORMAT):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tar_format) as archive:
        for info, data in entries:
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def refusal(tmp_path, data, limits=None):
    """Unpack data, which has to be refused and to leave nothing; return why it was."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    package = tmp_path / "package.tar.gz"
    package.write_bytes(data)
    with package.open("rb") as file, pytest.raises(PackageRefused) as refused:
        unpack(file, home / "greet", hashlib.sha256(data).hexdigest(), limits or Limits())
    assert list(home.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "package.tar.gz"]
    return str(refused.value)


def test_good_archive_is_unpacked(tmp_path):
    data = gzip.compress(tar([*good(), entry("a/b/c.txt", b"deep")]))
    (tmp_path / "package").write_bytes(data)

    with (tmp_path / "package").open("rb") as file:
        package = unpack(file, tmp_path / "greet", hashlib.sha256(data).hexdigest())

    assert (package.manifest.id, package.files) == ("greet", 3)
    assert (tmp_path / "greet/a/b/c.txt").read_bytes() == b"deep"
    assert (tmp_path / "greet/main.sh").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "greet/plugin.toml").stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["greet", "package"]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (entry("/etc/cron.d/x"), "is absolute"),
        (entry("../x"), "leaves the folder"),
        (entry("a/../../x"), "leaves the folder"),
        (entry("./x"), "empty part"),
        (entry("a//x"), "empty part"),
        (entry("a\\..\\x"), "not every system"),
        (entry("C:x"), "not every system"),
        (entry("a\nb"), "not every system"),
        (entry("a\u202eb"), "not every system"),
        (entry("x."), "ends in a dot"),
        (entry("link", kind=tarfile.SYMTYPE, linkname="/etc"), "symbolic link"),
        (entry("link", kind=tarfile.LNKTYPE, linkname="main.sh"), "hard link"),
        (entry("null", kind=tarfile.CHRTYPE), "device"),
        (entry("disk", kind=tarfile.BLKTYPE), "device"),
        (entry("pipe", kind=tarfile.FIFOTYPE), "pipe"),
        (entry("folder", kind=tarfile.DIRTYPE), "folder"),
        (entry("odd", kind=b"Z"), "of a kind that is not a file"),
        (entry("main.sh"), "collides with 'main.sh'"),
        (entry("MAIN.sh"), "collides with 'main.sh'"),
        (entry("main.sh/x"), "collides with 'main.sh'"),
        (entry("PLUGIN.toml/x"), "collides with 'plugin.toml'"),
    ],
)
def test_harmful_entry_is_refused_by_name(tmp_path, bad, why):
    assert why in refusal(tmp_path, gzip.compress(tar([*good(), bad])))


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_of_other_formats_are_refused(tmp_path, tar_format):
    data = gzip.compress(tar([*good(), entry("x" * 200)], tar_format))

    assert "muster plugin pack" in refusal(tmp_path, data)


def test_link_that_a_later_file_would_follow_leads_nowhere(tmp_path):
    bad = [entry("out", kind=tarfile.SYMTYPE, linkname=".."), entry("out/escaped", b"x")]

    assert "symbolic link" in refusal(tmp_path, gzip.compress(tar([*good(), *bad])))


def test_accents_written_in_two_ways_collide(tmp_path):
    bad = [entry("\u00e9", b"1"), entry("e\u0301", b"2")]

    assert "collides" in refusal(tmp_path, gzip.compress(tar([*good(), *bad])))


def test_folders_that_differ_by_case_collide(tmp_path):
    bad = [entry("Lib/a", b"1"), entry("lib/b", b"2")]

    assert "collides" in refusal(tmp_path, gzip.compress(tar([*good(), *bad])))


def test_name_that_is_no_text_is_refused(tmp_path):
    data = tar([*good(), entry("xyz")])
    info = tarfile.TarInfo("xyz")
    header = info.tobuf(tarfile.USTAR_FORMAT)
    raw = tarfile.TarInfo("\udcff\udcfe\udcfd").tobuf(
        tarfile.USTAR_FORMAT, "utf-8", "surrogateescape"
    )

    changed = data.replace(header, raw)

    assert changed != data
    assert "UTF-8" in refusal(tmp_path, gzip.compress(changed))


def test_bomb_is_stopped_by_its_ratio(tmp_path):
    limits = Limits(ratio_from=1 << 20)
    data = gzip.compress(tar([*good(), entry("zeros", bytes(8 << 20))]))

    assert "times its size" in refusal(tmp_path, data, limits)


def test_announced_size_counts_before_a_byte_is_written(tmp_path):
    info = tarfile.TarInfo("huge")
    info.size = 7 << 30
    data = entry_blocks(good()) + info.tobuf(tarfile.USTAR_FORMAT)

    assert "unpacks to more than" in refusal(tmp_path, gzip.compress(data))


def entry_blocks(entries):
    return b"".join(
        info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512) for info, data in entries
    )


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        (Limits(files=2), "more than 2 files"),
        (Limits(unpacked=1000), "more than 1000 bytes"),
        (Limits(packed=50), "larger than 50 bytes"),
    ],
)
def test_limits_hold(tmp_path, limits, why):
    data = gzip.compress(tar([*good(), entry("more", os.urandom(1000))]))

    assert why in refusal(tmp_path, data, limits)


def test_bytes_behind_the_end_are_refused(tmp_path):
    data = tar(good())

    assert "after its end" in refusal(tmp_path, gzip.compress(data + b"hidden"))
    assert "after its end" in refusal(tmp_path, gzip.compress(data) + gzip.compress(b"hidden"))


def test_bytes_behind_a_file_are_refused(tmp_path):
    blocks = bytearray(entry_blocks(good()))
    blocks[-1] = 1

    assert "after its end" in refusal(tmp_path, gzip.compress(bytes(blocks) + bytes(1024)))


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ([entry("main.sh", mode=0o755)], "has no plugin.toml"),
        ([entry("plugin.toml", MANIFEST)], "main.sh is missing"),
        ([entry("plugin.toml", MANIFEST), entry("main.sh")], "not executable"),
        ([entry("plugin.toml", b"#" * 70_000), entry("main.sh", mode=0o755)], "larger than"),
        ([entry("plugin.toml", b"id = 3"), entry("main.sh", mode=0o755)], "plugin.toml: id"),
    ],
)
def test_manifest_that_lies_is_refused(tmp_path, files, why):
    assert why in refusal(tmp_path, gzip.compress(tar(files)))


def test_cut_archive_is_refused_at_every_length(tmp_path):
    data = gzip.compress(tar(good()), mtime=0)

    for length in range(len(data)):
        assert "archive: " in refusal(tmp_path, data[:length])


@given(data=st.data())
def test_changed_byte_never_gets_out_of_the_folder(tmp_path_factory, data):
    tmp_path = tmp_path_factory.mktemp("changed")
    plain = bytearray(tar(good()))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, 2048))
        plain[position] = data.draw(st.integers(0, 255))
    packed = gzip.compress(bytes(plain))
    (tmp_path / "package").write_bytes(packed)
    (tmp_path / "home").mkdir()

    with (tmp_path / "package").open("rb") as file:
        try:
            unpack(file, tmp_path / "home/greet", hashlib.sha256(packed).hexdigest())
        except PackageRefused:
            assert list((tmp_path / "home").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"package", "home"}


@given(data=st.binary(max_size=600))
def test_any_bytes_are_refused(tmp_path_factory, data):
    package = tmp_path_factory.mktemp("any") / "package"
    for each in (data, gzip.compress(data)):
        package.write_bytes(each)
        with package.open("rb") as file, pytest.raises(PackageRefused):
            inspect(file)


def test_other_bytes_than_the_address_says_are_not_read(tmp_path):
    (tmp_path / "package").write_bytes(gzip.compress(tar(good())))

    with (tmp_path / "package").open("rb") as file, pytest.raises(PackageRefused, match="SHA-256"):
        unpack(file, tmp_path / "greet", "0" * 64)
    assert not (tmp_path / "greet").exists()


def test_what_is_there_stays(tmp_path):
    data = gzip.compress(tar(good()))
    (tmp_path / "package").write_bytes(data)
    (tmp_path / "greet").symlink_to(tmp_path)

    with (tmp_path / "package").open("rb") as file, pytest.raises(PackageRefused, match="already"):
        unpack(file, tmp_path / "greet", hashlib.sha256(data).hexdigest())


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from plugins.package.unpacking import unpack

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, 1 << 19))
with open(sys.argv[1], "rb") as file:
    unpack(file, Path(sys.argv[2]), sys.argv[3])
"""


def test_file_that_cannot_be_written_leaves_nothing(tmp_path):
    data = gzip.compress(tar([*good(), entry("large", os.urandom(1 << 20))]))
    (tmp_path / "package").write_bytes(data)
    (tmp_path / "home").mkdir()
    address = hashlib.sha256(data).hexdigest()

    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", FULL_DISK, tmp_path / "package", tmp_path / "home/greet", address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "OSError: [Errno 27] File too large" in done.stderr
    assert list((tmp_path / "home").iterdir()) == []


PATHS = st.text(alphabet="aA/.é\\: \x00\u0301ß", max_size=8)


@given(st.lists(PATHS, max_size=6))
def test_paths_that_pass_are_files_of_their_own_inside(paths):
    taken = Taken()
    accepted = [path for path in paths if not path_problem(path) and not taken.add(path)]

    for path in accepted:
        assert os.path.normpath(path) == path
        assert not path.startswith("/")
        assert ".." not in path.split("/")
    folded = [path.casefold() for path in accepted]
    assert len(set(folded)) == len(folded)
    assert not any(a.startswith(b + "/") for a in folded for b in folded)


def test_packed_folder_is_read_back(tmp_path):
    (tmp_path / "greet").mkdir()
    (tmp_path / "greet/plugin.toml").write_bytes(MANIFEST)
    (tmp_path / "greet/main.sh").write_text("#!/bin/sh\n")
    (tmp_path / "greet/main.sh").chmod(0o755)

    package = pack(tmp_path / "greet", tmp_path / "greet.tar.gz")

    with (tmp_path / "greet.tar.gz").open("rb") as file:
        assert inspect(file, sha256=package.sha256) == package
