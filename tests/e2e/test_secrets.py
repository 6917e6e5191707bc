"""Secrets that tasks name: who gets which value, and what becomes of those that cannot be had."""

import json
import os
import uuid
from pathlib import Path

import pytest

from tests.e2e.kit import eventually
from tests.e2e.scripts import Gate
from tests.openbao import openbao


@pytest.fixture(scope="module")
def server(shared):
    return shared.start_server()


@pytest.fixture(scope="module")
def agent(shared, server):
    return shared.start_agent(server, slots=2)


def task_file(folder: Path, **fields) -> str:
    path = folder / f"{uuid.uuid4().hex}.json"
    path.write_text(json.dumps(fields))
    return str(path)


def searched(folders: list[Path]) -> bytes:
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    assert files
    return b"\0".join(file.read_bytes() for file in files)


def test_a_secret_that_does_not_exist_is_named(shared, server, tmp_path):
    file = task_file(tmp_path, commands=["true"], secret_refs={"X": "absent"})
    done = shared.cli("task", "create", "-f", file, server=server)
    assert done.returncode == 1
    assert "secret_refs[X]: there is no secret 'absent'" in done.stderr


def test_a_secret_that_is_gone_fails_its_task_and_says_why(shared, server, agent, tmp_path):
    assert shared.cli("secret", "set", "fleeting", server=server, stdin="value-1").returncode == 0
    gate = Gate(tmp_path)
    first = task_file(tmp_path, name="first", commands=[gate.wait])
    made = shared.cli("task", "create", "-f", first, server=server)
    first_id = made.stdout.split()[0]
    file = task_file(
        tmp_path, commands=["true"], secret_refs={"X": "fleeting"}, depends_on=[first_id]
    )
    task_id = shared.cli("task", "create", "-f", file, server=server).stdout.split()[0]
    assert shared.cli("secret", "delete", "fleeting", server=server).returncode == 0
    gate.open()

    def task():
        return shared.cli("task", "get", task_id, server=server).stdout

    eventually(lambda: "FAILED" in task())
    assert "there is no secret 'fleeting'" in task()


def test_a_value_that_cannot_be_hidden_is_not_kept(shared, server):
    done = shared.cli("secret", "set", "pin", server=server, stdin="123")
    assert done.returncode == 1
    assert "at least 4 characters" in done.stderr
    assert "pin" not in shared.cli("secret", "list", server=server).stdout


def test_a_changed_secret_reaches_the_next_task(shared, server, agent, tmp_path):
    for value in ("value-one", "value-two"):
        assert shared.cli("secret", "set", "turn", server=server, stdin=value).returncode == 0
        file = task_file(
            tmp_path,
            commands=['printf %s "$T" | cut -c7- | tr a-z A-Z'],
            secret_refs={"T": "turn"},
        )
        made = shared.cli("task", "create", "-f", file, server=server)
        task_id = made.stdout.split()[0]
        logged = shared.cli("task", "logs", "-f", task_id, server=server).stdout
        assert logged.strip() == value[6:].upper()


def test_secrets_of_an_outside_store_reach_tasks(shared, tmp_path):
    with openbao(tmp_path) as (address, token_file):
        flags = ("--vault-address", address, "--vault-token-file", str(token_file))
        server = shared.start_server(*flags, data_dir=tmp_path / "data")
        agent = shared.start_agent(server)
        value = f"outside-{uuid.uuid4().hex}"
        assert shared.cli("secret", "set", "out", server=server, stdin=value).returncode == 0
        file = task_file(tmp_path, commands=['echo "got $OUT" | rev'], secret_refs={"OUT": "out"})
        made = shared.cli("task", "create", "-f", file, server=server)
        assert made.returncode == 0, made.stderr
        logged = shared.cli("task", "logs", "-f", made.stdout.split()[0], server=server).stdout
        assert logged.strip() == f"got {value}"[::-1]
        assert value.encode() not in searched([server.data_dir])
        agent.terminate()
        assert server.terminate() == 0


def test_keys_are_for_their_owner_alone(server):
    mode = os.stat(server.data_dir / "secret-keys").st_mode & 0o777  # noqa: PTH116
    assert mode == 0o600
