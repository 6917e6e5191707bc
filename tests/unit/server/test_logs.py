import io
import json
import logging

import pytest
import structlog

from server import logs


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
