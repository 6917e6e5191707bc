import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from tools.contract.table_to_image import Row, image, read

ROOT = Path(__file__).parents[4]
RELEASED = ROOT / "tools" / "contract" / "released.binpb"
BUF = Path(sys.executable).with_name("buf")


def breaking(folder):
    """Return what `buf breaking` says about the protos in a folder."""
    command = [BUF, "breaking", "--against", RELEASED]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 (our own arguments)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(ROOT / "proto", tmp_path / "proto")
    shutil.copy(ROOT / "buf.yaml", tmp_path)
    return tmp_path


def test_the_committed_image_is_what_the_table_says():
    released = descriptor_pb2.FileDescriptorSet.FromString(RELEASED.read_bytes())
    assert released == image(read())


def test_the_protos_keep_the_released_api(copy):
    outcome = breaking(copy)
    assert (outcome.returncode, outcome.stdout) == (0, "")


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("repeated string commands = 4;", "repeated string script = 4;", "changed name"),
        ("repeated string commands = 4;", "repeated string commands = 99;", 'field "4"'),
        ("repeated string commands = 4;", "string commands = 4;", "cardinality"),
        ("TASK_STATUS_SKIPPED = 8;", "TASK_STATUS_SKIPPED = 9;", 'enum value "8"'),
        ("rpc RetryTask(", "rpc AgainTask(", "RetryTask"),
    ],
)  # fmt: skip
def test_a_change_to_the_released_api_is_refused(copy, before, after, complaint):
    file = copy / "proto" / "task" / "v1" / "task.proto"
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after, 1))
    outcome = breaking(copy)
    assert outcome.returncode != 0
    assert complaint in outcome.stdout


def test_a_row_becomes_the_descriptor_it_names():
    built = image(
        [
            Row("rpc", "a.v1.S", "Watch", "server_stream", "a.v1.Q -> b.v1.R"),
            Row("field", "a.v1.Q", "retry_count", "1", "int32"),
            Row("field", "a.v1.Q", "env", "2", "map<string,b.v1.R>"),
            Row("field", "a.v1.Q", "left", "3", "string oneof=side"),
            Row("field", "a.v1.Q", "right", "4", "b.v1.Colour oneof=side"),
            Row("enum", "b.v1.Colour", "COLOUR_UNSPECIFIED", "0", ""),
        ]
    )
    second, first = built.file
    assert (first.name, second.name) == ("a/v1/a.proto", "b/v1/b.proto")
    assert list(first.dependency) == ["b/v1/b.proto"]
    fields = {field.name: field for field in first.message_type[0].field}
    assert fields["retry_count"].json_name == "retryCount"
    assert fields["env"].type_name == ".a.v1.Q.EnvEntry"
    assert first.message_type[0].nested_type[0].field[1].type_name == ".b.v1.R"
    assert [first.message_type[0].oneof_decl[0].name, fields["right"].type_name] == [
        "side",
        ".b.v1.Colour",
    ]
    method = first.service[0].method[0]
    assert (method.client_streaming, method.server_streaming) == (False, True)
