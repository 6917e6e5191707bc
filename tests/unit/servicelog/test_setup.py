import io
import json
import logging

import pytest
import structlog

from servicelog import setup as logs


@pytest.fixture(autouse=True)
def _restore():
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers, root.level = handlers, level
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def records(out):
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_our_records_and_those_of_libraries_have_one_form():
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.contextvars.bind_contextvars(request_id="r-1")
    structlog.get_logger("server.x").info("task ended", task_id="t-1")
    logging.getLogger("uvicorn.error").warning("port %d is odd", 7)
    logging.getLogger("alembic.runtime").warning("slow", extra={"table": "task"})
    ours, web, database = records(out)
    assert (ours["message"], ours["task_id"], ours["logger"]) == ("task ended", "t-1", "server.x")
    assert (web["message"], web["level"]) == ("port 7 is odd", "warning")
    assert database["table"] == "task"
    assert {record["request_id"] for record in (ours, web, database)} == {"r-1"}
    assert all(record["timestamp"].endswith("Z") for record in (ours, web, database))


def test_an_exception_stays_in_its_own_line():
    out = io.StringIO()
    logs.configure("info", "json", out)
    try:
        raise KeyError("lost")
    except KeyError:
        structlog.get_logger().exception("call failed")
        logging.getLogger("grpc").exception("call failed too")
    ours, theirs = records(out)
    assert "KeyError: 'lost'" in ours["exception"]
    assert "KeyError: 'lost'" in theirs["exception"]


def test_a_value_json_does_not_know_is_still_logged():
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger().info("odd", value=object)
    assert "object" in records(out)[0]["value"]


@pytest.mark.parametrize("library", ["sqlalchemy.engine", "uvicorn.access", "server.x"])
def test_what_is_below_the_level_is_not_written(library):
    out = io.StringIO()
    logs.configure("warning", "json", out)
    logging.getLogger(library).info("details")
    structlog.get_logger(library).info("details")
    assert out.getvalue() == ""


def test_auto_is_json_where_nobody_reads_along_and_text_on_a_terminal():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for out, is_json in [(io.StringIO(), True), (Terminal(), False)]:
        logs.configure("info", "auto", out)
        structlog.get_logger().info("hello")
        assert out.getvalue().startswith("{") is is_json
        assert "hello" in out.getvalue()


def test_secrets_are_never_written_and_payloads_only_in_part():
    out = io.StringIO()
    logs.configure("info", "json", out)
    structlog.get_logger().info(
        "odd",
        api_key="k",
        env={"DB_PASSWORD": "p", "HOME": "/home", "deep": [{"authorization": "b"}]},
        url="postgresql://muster:hunter@host/db",
        body=b"123",
        text="x" * 5000,
    )
    logging.getLogger("library").warning("odd", extra={"client_secret": "s"})
    ours, theirs = records(out)
    hidden = "[redacted]"
    assert (ours["api_key"], theirs["client_secret"]) == (hidden, hidden)
    assert ours["env"] == {
        "DB_PASSWORD": hidden,
        "HOME": "/home",
        "deep": [{"authorization": hidden}],
    }
    assert ours["url"] == "postgresql://muster:[redacted]@host/db"
    assert ours["body"] == "3 bytes"
    assert ours["text"].endswith("… (5000 characters)")
    assert len(ours["text"]) < 2100


def test_a_module_may_have_a_level_of_its_own():
    out = io.StringIO()
    logs.configure("warning", "json", out, levels={"server.engine": "debug"})
    structlog.get_logger("server.engine.writer").debug("seen")
    structlog.get_logger("server.rpc").info("not seen")
    assert [record["message"] for record in records(out)] == ["seen"]
    logging.getLogger("server.engine").setLevel(logging.NOTSET)


def test_a_full_file_is_followed_by_another_and_the_oldest_goes(tmp_path):
    path = tmp_path / "logs" / "server.log"
    logs.configure("info", "console", io.StringIO(), file=logs.LogFile(path, 2000, 2))
    for number in range(100):
        structlog.get_logger().info("said", number=number)
    for handler in logging.getLogger().handlers:
        handler.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["server.log", "server.log.1", "server.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    lines = [line for file in reversed(files) for line in file.read_text().splitlines()]
    numbers = [json.loads(line)["number"] for line in lines]
    assert numbers == list(range(numbers[0], 100))


@pytest.mark.parametrize("level", ["debug", "info"])
@pytest.mark.parametrize("library", ["httpx2", "httpcore2.http11"])
def test_urls_that_open_files_are_not_told(library, level):
    out = io.StringIO()
    logs.configure(level, "json", out)
    logging.getLogger(library).info("HTTP Request: PUT https://store.example/part?signature=live")
    logging.getLogger(library).debug("send_request_headers target=/part?signature=live")
    assert records(out) == []
