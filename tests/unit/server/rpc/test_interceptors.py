"""The interceptor before real handlers of all four kinds, over real gRPC on loopback."""

import asyncio
import json
from contextlib import asynccontextmanager

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server import metrics
from server.auth import Caller, Kind, Open, current_caller
from server.domain.access import Permission
from server.domain.errors import Draining, Invalid, NotFound, Unauthenticated, Violation
from server.engine.call_limits import CallLimits
from server.rpc.interceptors import CallInterceptor

OPEN = Open()
KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
TABLE = {f"/test.Service/{name}": frozenset({Permission.OPERATE}) for name in (*KINDS, "written")}


def encode(value):
    return json.dumps(value).encode()


def handlers(act):
    """Return a method of each kind that answers with what `act` returns."""

    async def unary_unary(request, context):
        return await act(request, context)

    async def unary_stream(request, context):
        yield await act(request, context)

    async def stream_unary(requests, context):
        return await act(await anext(aiter(requests)), context)

    async def stream_stream(requests, context):
        async for request in requests:
            yield await act(request, context)

    async def written(request, context):
        await context.write(await act(request, context))

    def build(kind, behaviour):
        return getattr(grpc, f"{kind}_rpc_method_handler")(behaviour, json.loads, encode)

    behaviours = (unary_unary, unary_stream, stream_unary, stream_stream)
    methods = {kind: build(kind, behaviour) for kind, behaviour in zip(KINDS, behaviours)}  # noqa: B905 (same length by construction)
    return methods | {"written": build("unary_stream", written)}


@asynccontextmanager
async def serving(act, authenticator=OPEN, limits=None, table=TABLE):
    server = grpc.aio.server(interceptors=[CallInterceptor(authenticator, table, limits)])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", handlers(act))]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(None)


def start(channel, kind, metadata=(), request="hello"):
    """Start a call; where the client streams, `answer_of` does the sending."""
    method = f"/test.Service/{kind}"
    kind = "unary_stream" if kind == "written" else kind
    stub = getattr(channel, kind)(method, encode, json.loads)
    sent = [] if kind.startswith("stream") else [request]
    return stub(*sent, metadata=metadata)


async def answer_of(call, request="hello"):
    """Return the call's only answer.

    grpc.aio's client may report a call that is refused while it still sends as INTERNAL, so a
    request stream has one message here, or none, and is closed only after the answer.
    """
    if hasattr(call, "write") and request is not None:
        await call.write(request)
    if not hasattr(call, "read"):
        return await call
    answer = await call.read()
    if hasattr(call, "done_writing"):
        await call.done_writing()
    assert await call.code() is grpc.StatusCode.OK
    return answer


async def counted(method, code, expected):
    """Wait until so many calls are counted; the client may know of an end a little sooner."""
    labels = {"method": f"/test.Service/{method}", "code": code}
    async with asyncio.timeout(10):
        while (count(labels) or 0) < expected:  # noqa: ASYNC110 (a metric has no event)
            await asyncio.sleep(0.01)
    assert count(labels) == expected


def count(labels):
    return metrics.REGISTRY.get_sample_value("muster_rpc_requests_total", labels) or 0


def count_of(method, code):
    return count({"method": f"/test.Service/{method}", "code": code})


async def whoami(_request, _context):
    caller = current_caller()
    bound = structlog.contextvars.get_contextvars()["request_id"]
    return [caller.namespace, caller.request_id, bound]


@pytest.mark.parametrize("kind", [*KINDS, "written"])
async def test_the_handler_knows_the_caller_and_the_client_gets_the_request_id(kind):
    async with serving(whoami) as channel:
        before = count_of(kind, "OK")
        call = start(channel, kind, [("x-request-id", "r-1"), ("muster-namespace", "team-a")])
        assert await answer_of(call) == ["team-a", "r-1", "r-1"]
        is_stream = kind != "unary_unary"
        told = await (call.initial_metadata() if is_stream else call.trailing_metadata())
        assert dict(told)["x-request-id"] == "r-1"
        await counted(kind, "OK", before + 1)


@pytest.mark.parametrize("sent", [(), [("x-request-id", "spaces are not sane")]])
async def test_a_request_id_is_made_where_none_is_usable(sent):
    async with serving(whoami) as channel:
        first, second = [await answer_of(start(channel, "unary_unary", sent)) for _ in range(2)]
    assert first[0] == "default"
    assert len(first[1]) == 36
    assert first[1] < second[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["", "Team", "a_b", "x" * 64])
async def test_a_malformed_namespace_is_refused_by_name(kind, name):
    async with serving(whoami) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, kind, [("muster-namespace", name)]), request=None)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "muster-namespace" in refused.value.details()


@pytest.mark.parametrize("kind", [*KINDS, "written"])
async def test_a_refusal_of_ours_arrives_with_its_code_and_details(kind):
    async def refuse(_request, _context):
        raise Invalid([Violation("name", "is empty")])

    async with serving(refuse) as channel:
        before = count_of(kind, "INVALID_ARGUMENT")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, kind))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = rpc_status.from_call(refused.value)
    bad = error_details_pb2.BadRequest()
    assert any(packed.Unpack(bad) for packed in status.details)
    assert bad.field_violations[0].field == "name"
    await counted(kind, "INVALID_ARGUMENT", before + 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_bug_is_told_as_one_without_its_details(kind):
    async def fail(_request, _context):
        raise KeyError("password")

    async with serving(fail) as channel:
        call = start(channel, kind, [("x-request-id", "r-9")])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(call)
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    assert "password" not in refused.value.details()
    assert "r-9" in refused.value.details()
    assert dict(refused.value.trailing_metadata())["x-request-id"] == "r-9"


async def test_a_refusal_inside_a_task_group_is_still_that_refusal():
    async def grouped(_request, _context):
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse())

    async def refuse():
        raise Draining

    async with serving(grouped) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, "stream_stream"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_handler_may_answer_by_itself():
    async def abort(_request, context):
        await context.abort(grpc.StatusCode.NOT_FOUND, "nobody")

    async with serving(abort) as channel:
        before = count_of("unary_unary", "NOT_FOUND")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, "unary_unary"))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details() == "nobody"
    await counted("unary_unary", "NOT_FOUND", before + 1)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_the_client_gives_up_ends_the_handler_and_is_counted(kind):
    started, ended = asyncio.Event(), asyncio.Event()

    async def hang(_request, _context):
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with serving(hang) as channel:
        before = count_of(kind, "CANCELLED")
        call = start(channel, kind)
        if hasattr(call, "write"):
            await call.write("hello")
        await asyncio.wait_for(started.wait(), 10)
        call.cancel()
        await asyncio.wait_for(ended.wait(), 10)
    await counted(kind, "CANCELLED", before + 1)
    labels = {"method": f"/test.Service/{kind}"}
    assert not metrics.REGISTRY.get_sample_value("muster_streams_open", labels)


async def test_a_method_nobody_serves_is_unimplemented():
    async with serving(whoami) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await channel.unary_unary("/test.Service/Nothing")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_calls_do_not_see_each_other():
    async def slowly(request, context):
        await asyncio.sleep(0.01)
        return await whoami(request, context)

    async with serving(slowly) as channel:
        names = [f"team-{number}" for number in range(50)]
        calls = [start(channel, "unary_unary", [("muster-namespace", name)]) for name in names]
        answers = [await answer_of(call) for call in calls]
    assert [answer[0] for answer in answers] == names


async def test_a_refusal_without_a_subject_is_still_utf8():
    async def refuse(request, _context):
        raise NotFound("task", request)

    async with serving(refuse) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, "unary_unary", request="naïve\n☃"))
    assert "naïve" in refused.value.details()


class Fixed:
    """An authenticator that knows one caller, or none."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.shown = []

    async def caller(self, shown):
        self.shown.append(shown)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


def user(*permissions):
    return Caller(namespace="team", name="ci", kind=Kind.USER, permissions=frozenset(permissions))


@pytest.mark.parametrize("kind", KINDS)
async def test_who_is_not_known_is_not_let_in(kind):
    async def never(request, context):
        raise AssertionError("the handler was reached")

    async with serving(never, Fixed(Unauthenticated("Show a token."))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, kind), None)
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason_of(refused.value) == "ERROR_REASON_UNAUTHENTICATED"


@pytest.mark.parametrize("kind", KINDS)
async def test_who_has_no_permission_is_told_which(kind):
    async def never(request, context):
        raise AssertionError("the handler was reached")

    async with serving(never, Fixed(user(Permission.VIEW))) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, kind), None)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert refused.value.details() == (
        f"ci may not call /test.Service/{kind}; that needs the permission operate."
    )


async def test_a_method_that_is_not_in_the_table_is_closed_to_everybody():
    server = grpc.aio.server(interceptors=[CallInterceptor(OPEN, {})])
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", handlers(whoami))]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await answer_of(start(channel, "unary_unary"))
    await server.stop(None)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_authenticator_sees_what_the_call_shows():
    known = Fixed(user(Permission.OPERATE))
    async with serving(whoami, known) as channel:
        sent = (("authorization", "Bearer abc"), ("muster-namespace", "team"))
        await answer_of(start(channel, "unary_unary", sent))
    [shown] = known.shown
    assert (shown.authorization, shown.namespace) == ("Bearer abc", "team")
    assert shown.peer.startswith("ipv4:127.0.0.1:")


@pytest.mark.parametrize(
    ("wanted", "open_at_once"),
    [
        ({Permission.SERVE}, 3),
        ({Permission.SERVE, Permission.ENROL}, 3),
        ({Permission.OPERATE, Permission.SERVE}, 1),
        ({Permission.VIEW}, 1),
        (set(), 1),
    ],
)
async def test_agents_that_need_not_say_who_they_are_are_held_to_no_limit_either(
    wanted, open_at_once
):
    started = asyncio.Queue()

    async def hold(_request, _context):
        started.put_nowait(None)
        await asyncio.Event().wait()

    table = {"/test.Service/unary_stream": frozenset(wanted)}
    async with serving(hold, limits=CallLimits(0, 0, streams=1), table=table) as channel:
        for number in range(3):
            call = start(channel, "unary_stream")
            if number < open_at_once:
                await asyncio.wait_for(started.get(), 10)
            else:
                assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def reason_of(error):
    [info] = [each for each in rpc_status.from_call(error).details if each.Is(ERROR_INFO)]
    unpacked = error_details_pb2.ErrorInfo()
    info.Unpack(unpacked)
    return unpacked.reason


ERROR_INFO = error_details_pb2.ErrorInfo.DESCRIPTOR
