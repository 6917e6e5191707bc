import os
from datetime import timedelta
from pathlib import Path

import pytest

from server.address import Address
from server.config import load, warnings_about
from server.stores.blobs.place import Bucket

OFF = "auth is off: EVERYBODY on this machine can run commands on your agents"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("MUSTER_")]:
        monkeypatch.delenv(name)


def refusal(capsys, *argv):
    """Return the lines that a refused start leaves on stderr."""
    with pytest.raises(SystemExit) as end:
        load(argv)
    assert end.value.code == 2
    return capsys.readouterr().err.splitlines()


def test_defaults_are_those_of_the_contract():
    settings = load([])
    assert settings.grpc_listen == Address("127.0.0.1", 50051)
    assert settings.http_listen == Address("127.0.0.1", 8080)
    assert settings.heartbeat_interval == timedelta(seconds=10)
    assert settings.lease == timedelta(seconds=30)
    assert settings.start_grace == timedelta(seconds=60)


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path, monkeypatch):
    file = tmp_path / "muster.toml"
    file.write_text("writer_batch = 1\nwriter_queue = 2\nkill_grace = 3\n")
    monkeypatch.setenv("MUSTER_WRITER_QUEUE", "20")
    monkeypatch.setenv("MUSTER_WRITER_BATCH", "10")
    settings = load(["--config", str(file), "--writer-batch", "100"])
    assert settings.writer_batch == 100
    assert settings.writer_queue == 20
    assert settings.kill_grace == timedelta(seconds=3)


def test_the_environment_can_name_the_file(tmp_path, monkeypatch):
    file = tmp_path / "muster.toml"
    file.write_text('log_level = "debug"\n')
    monkeypatch.setenv("MUSTER_CONFIG", str(file))
    assert load([]).log_level == "debug"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30), ("2.5", 2.5), ("PT1M", 60), ("0.05", 0.05)]
)
def test_durations_are_seconds_or_iso(text, seconds):
    assert load(["--kill-grace", text]).kill_grace == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "soon", "1e400", ""])
def test_a_duration_that_is_none_is_refused(capsys, text):
    (line,) = refusal(capsys, f"--kill-grace={text}")
    assert line.startswith("--kill-grace: ")


def test_every_bad_value_gets_one_line_that_names_where_it_came_from(capsys, tmp_path, monkeypatch):
    file = tmp_path / "muster.toml"
    file.write_text("misspelt = 1\nwriter_queue = -1\n")
    monkeypatch.setenv("MUSTER_HTTP_LISTEN", "8080")
    lines = refusal(capsys, "--config", str(file), "--log-level", "loud")
    assert sorted(line.partition(": ")[0] for line in lines) == sorted(
        ["--log-level", str(file), str(file), "MUSTER_HTTP_LISTEN"]
    )
    assert any("there is no such setting" in line for line in lines)


def test_an_unknown_flag_is_refused(capsys):
    assert "No such option '--colour'." in refusal(capsys, "--colour", "red")[-1]


def test_a_broken_file_is_refused_by_name(capsys, tmp_path):
    file = tmp_path / "muster.toml"
    file.write_text("lease = [")
    (line,) = refusal(capsys, "--config", str(file))
    assert line.startswith(f"{file}: ")


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:0"])
def test_listening_beyond_this_machine_needs_insecure(capsys, address):
    (line,) = refusal(capsys, "--grpc-listen", address)
    assert "--insecure" in line
    settings = load(["--grpc-listen", address, "--insecure"])
    assert any("EVERYBODY" in warning for warning in warnings_about(settings, {}))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:65535", "localhost:80", "127.9.9.9:1"])
def test_listening_on_this_machine_needs_nothing(address):
    settings = load(["--http-listen", address])
    assert str(settings.http_listen) == address
    assert warnings_about(settings, {}) == [OFF]
    assert warnings_about(load(["--http-listen", address, "--auth", "on"]), {}) == []


@pytest.mark.parametrize("address", ["", "1", "host", "host:", ":1", "::1:80", "h:65536", "h:²"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(ValueError, match=r"HOST:PORT|port"):
        Address.parse(address)


def test_the_database_is_a_file_in_the_data_folder_unless_told_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load(["--data-dir", "here"]).sqlite_file == tmp_path / "here" / "muster.db"
    assert load(["--database-url", "sqlite:////x/y.db"]).sqlite_file == Path("/x/y.db")
    assert load(["--database-url", "postgresql+asyncpg://u@h/d"]).sqlite_file is None


def test_a_folder_for_logs_that_servers_share_is_for_postgresql(capsys):
    settings = load(["--database-url", "postgresql+asyncpg://u@h/d", "--log-blobs", "/shared"])
    assert (settings.log_blobs, settings.log_folder) == (Path("/shared"), None)
    refused = "".join(refusal(capsys, "--log-blobs", "/shared"))
    assert refused.startswith("--log-blobs: is for PostgreSQL")


def test_an_archive_lies_in_a_folder_of_its_own(capsys, tmp_path):
    assert load(["--log-archive", str(tmp_path)]).log_archive == tmp_path
    assert "should name a folder" in "".join(refusal(capsys, "--log-archive", ""))
    inside = str(tmp_path / "muster.logs" / "archive")
    refused = refusal(capsys, "--data-dir", str(tmp_path), "--log-archive", inside)
    assert "should lie outside" in "".join(refused)


def test_an_archive_lies_in_a_bucket(capsys, monkeypatch):
    whole = "s3://logs/prod/eu?endpoint=https://minio:9000&region=eu-1"
    bucket = Bucket("logs", "prod/eu", "https://minio:9000", "eu-1")
    assert load(["--log-archive", whole]).log_archive == bucket
    monkeypatch.setenv("MUSTER_LOG_ARCHIVE", "s3://logs")
    assert load([]).log_archive == Bucket("logs")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("s3://", "the name of a bucket"),
        ("s3://LOGS", "the name of a bucket"),
        ("s3://key:word@logs", "the name of a bucket"),
        ("s3://logs#x", "the name of a bucket"),
        ("s3://[", "should be s3://BUCKET/PREFIX"),
        ("s3://logs?endpoint", "should be s3://BUCKET/PREFIX"),
        ("s3://logs?key=hunter2", "knows endpoint and region"),
        ("s3://logs?region=a&region=b", "knows endpoint and region"),
        ("s3://logs?endpoint=minio:9000", "endpoint should be http:// or https://"),
        ("s3://logs?endpoint=http://u:p@minio", "endpoint should be http:// or https://"),
    ],
)
def test_bucket_that_is_none_is_refused(capsys, place, said):
    refused = "".join(refusal(capsys, "--log-archive", place))
    assert refused.startswith("--log-archive: ")
    assert said in refused
    assert "hunter2" not in refused


def test_a_database_url_with_a_password_is_never_shown(capsys):
    refused = "mysql://root:hunter2@host/db"
    assert "hunter2" not in "".join(refusal(capsys, "--database-url", refused))
    assert "hunter2" not in repr(load(["--database-url", "postgresql+asyncpg://u:hunter2@h/d"]))


@pytest.mark.parametrize(
    ("flags", "least"),
    [
        (("--lease", "10"), 25),
        (("--lease", "25"), 25),
        (("--lease", "40", "--heartbeat-interval", "30", "--kill-grace", "60"), 45),
        (("--lease", "7", "--heartbeat-interval", "1", "--kill-grace", "0.5"), 7),
        (("--heartbeat-interval", "20"), 35),
    ],
)
def test_a_lease_leaves_time_to_stop_a_task_between_heartbeats(capsys, flags, least):
    (line,) = refusal(capsys, *flags)
    flag = "--lease" if "--lease" in flags else "lease"
    assert line.startswith(
        f"{flag}: should be longer than {least} s: heartbeat_interval, kill_grace"
    )


def test_a_lease_may_be_short_where_heartbeats_and_grace_are():
    flags = ("--lease", "7.5", "--heartbeat-interval", "1", "--kill-grace", "0.5")
    assert load(flags).lease == timedelta(seconds=7.5)


def test_a_misspelt_variable_is_reported_and_those_of_other_programs_are_not():
    variables = ["MUSTER_LEASES", "MUSTER_LEASE", "MUSTER_AGENT_SLOTS", "MUSTER_SERVER", "HOME"]
    warning, off = warnings_about(load([]), dict.fromkeys(variables, "1"))
    assert (warning.startswith("MUSTER_LEASES "), off) == (True, OFF)


def test_help_tells_every_setting_with_its_variable_and_default(capsys):
    with pytest.raises(SystemExit) as end:
        load(["--help"])
    assert end.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--heartbeat-interval DURATION" in text
    assert "MUSTER_HEARTBEAT_INTERVAL" in text
    assert "the user's data folder" in text


def test_a_role_is_lent_only_of_a_bucket(tmp_path, capsys):
    role = "arn:aws:iam::1:role/uploads"
    assert load(["--artifact-home", "s3://blobs", "--artifact-role", role]).artifact_role == role
    for home, wrong, why in (
        (str(tmp_path), role, "belongs to an artifact_home of s3://BUCKET/PREFIX"),
        ("s3://blobs", "uploads", "uploads should be like arn:aws:iam::ACCOUNT:role/NAME"),
    ):
        told = refusal(capsys, "--artifact-home", home, "--artifact-role", wrong)
        assert why in " ".join(told)
