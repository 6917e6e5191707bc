"""What every gRPC call passes: its id, its caller, its errors and its measurements."""

import asyncio
import inspect
import re
import time
from asyncio import CancelledError
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_status import rpc_status
from uuid_utils import uuid7

from server import metrics
from server.access import RPCS
from server.auth import (
    DEFAULT_NAMESPACE,
    Authenticator,
    Caller,
    Kind,
    Presented,
    check_may,
    check_namespace,
    set_caller,
)
from server.domain.access import ANYBODY, Permission
from server.domain.audit import Origin
from server.domain.errors import Invalid, StoreUnavailable, Violation
from server.engine.call_limits import CallLimits
from server.engine.origin import set_origin
from server.rpc.errors import INTERNAL, answer_to, to_status

REQUEST_ID = "x-request-id"
NAMESPACE = "muster-namespace"
AUTHORIZATION = "authorization"

# One interceptor serves every service, so messages have any type here.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Behaviour: TypeAlias = "Callable[[Any, Context], Any]"

_SANE_REQUEST_ID = re.compile(r"[\w.:/+=@-]{1,128}", re.ASCII)
_SUBJECTS = {
    "job_id": "task_id",
    "task_id": "task_id",
    "run_id": "run_id",
    "pipeline_id": "pipeline_id",
    "agent_id": "agent_id",
}
"""Fields of requests that say what a call is about, and what the log calls them."""
ID_PREVIEW = 128
LOOK_AGAIN = 1.0
"""Seconds after which a stream's caller is asked again whether its token counts."""
_AGENTS_ALONE = frozenset({Permission.SERVE, Permission.ENROL})
"""A door that wants nothing else is for agents."""
_WORTH_A_WARNING = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}
_CODE_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_BUILDERS: dict[tuple[bool, bool], tuple[str, "Callable[..., Handler]"]] = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}

log = structlog.get_logger(__name__)


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Surrounds every call of every service with a `Call`."""

    def __init__(
        self,
        authenticator: Authenticator,
        table: Mapping[str, frozenset[Permission]] = RPCS,
        limits: CallLimits | None = None,
        *,
        asks_certificates: bool = False,
    ) -> None:
        self._asks_certificates = asks_certificates
        self._limits = limits or CallLimits(0, 0, 0)
        self._authenticator = authenticator
        self._table = table
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "Handler | None":
        """Return the method's handler, surrounded."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or method.startswith("/grpc."):
            return handler  # health and reflection know no callers
        known = self._wrapped.get(method)
        if known is None or known[0] is not handler:
            known = self._wrapped[method] = (handler, self._surround(handler, method))
        return known[1]

    def _surround(self, handler: Handler, method: str) -> Handler:
        door = Door(
            method,
            self._table.get(method),
            self._authenticator,
            self._limits,
            self._asks_certificates,
        )
        return _surround(handler, door)


@dataclass(frozen=True, slots=True)
class Door:
    """A method, who may call it, and who finds out who calls."""

    method: str
    wanted: frozenset[Permission] | None
    authenticator: Authenticator
    limits: CallLimits
    asks_certificates: bool
    """Whether clients show certificates; to look for their names takes time."""

    @property
    def for_agents(self) -> bool:
        """Whether nobody but agents has a use for it."""
        return self.wanted is not None and frozenset() < self.wanted <= _AGENTS_ALONE


class Call:
    """One call from its first byte to its end."""

    __slots__ = (
        "caller_kind", "code", "context", "counted", "door", "is_stream", "method", "request",
        "request_id", "shown", "started",
    )  # fmt: skip

    def __init__(self, door: Door, context: Context, request: object, *, is_stream: bool) -> None:
        method = door.method
        self.door = door
        self.method = method
        self.request = request
        self.context = context
        self.is_stream = is_stream
        self.code = grpc.StatusCode.OK.name
        self.request_id = ""
        self.shown: Presented | None = None
        """What has shown who calls; None where nobody has to."""
        self.caller_kind = Kind.ANYBODY
        self.counted = ""
        """As whose stream it counts."""
        self.started = time.perf_counter()
        if is_stream:
            metrics.streams_open.labels(method).inc()

    async def identify(self) -> None:
        """Make the caller and the request's id known to the handler and to the client.

        Raises:
            Invalid: the namespace is malformed.
            Forbidden: the caller may not make this call.
        Also what `Authenticator.caller` raises.
        """
        sent = dict(self.context.invocation_metadata() or ())
        given = sent.get(REQUEST_ID)
        if isinstance(given, str) and _SANE_REQUEST_ID.fullmatch(given):
            self.request_id = given
        else:
            self.request_id = str(uuid7())
        structlog.contextvars.bind_contextvars(request_id=self.request_id)
        await self._tell_request_id()
        shown = self._shown(sent)
        if self.door.wanted == ANYBODY and not shown.authorization:
            caller = Caller(
                shown.namespace or DEFAULT_NAMESPACE,
                request_id=self.request_id,
                permissions=ANYBODY,
            )
        else:
            caller = await self.door.authenticator.caller(shown)
            self.shown, self.caller_kind = shown, caller.kind
        set_caller(caller)
        self._count(caller)
        check_may(caller, self.door.wanted, self.method)
        if caller.kind is not Kind.ANYBODY:
            set_origin(_origin(caller, self.request_id, self.method))

    def _shown(self, sent: Mapping[str, str | bytes]) -> Presented:
        """Return what the call shows of its caller.

        Raises:
            Invalid: the namespace is malformed.
        """
        namespace = sent.get(NAMESPACE)
        names = _certificate_names(self.context) if self.door.asks_certificates else ()
        return Presented(
            authorization=str(sent.get(AUTHORIZATION, "")),
            namespace=None if namespace is None else check_namespace(str(namespace)),
            peer=self.context.peer(),
            certificate_names=names,
            request_id=self.request_id,
        )

    def _count(self, caller: Caller) -> None:
        """Hold the caller to its limits.

        Raises:
            TooManyCalls, TooManyStreams: it is beyond them.
        """
        if caller.kind is Kind.AGENT or (caller.kind is Kind.ANYBODY and self.door.for_agents):
            return  # what it may hold bounds it, and a report that is refused comes again
        who = caller.credential_id or caller.task_id or _host(caller.peer)
        self.door.limits.call(who)
        if self.is_stream:
            self.door.limits.open_stream(who)
            self.counted = who

    async def _tell_request_id(self) -> None:
        """Send the id with a stream's first byte, but with a unary call's answer.

        Sending it ahead of a unary answer is one more round through gRPC's core and made such
        calls a sixth slower.
        """
        sent = ((REQUEST_ID, self.request_id),)
        if self.is_stream:
            await self.context.send_initial_metadata(sent)
        else:
            self.context.set_trailing_metadata(sent)

    async def while_known(self, responses: AsyncIterator[object]) -> AsyncIterator[object]:
        """Yield answers as long as whoever asked may ask.

        Agents' streams end by themselves when they are revoked.

        Raises:
            Unauthenticated: the caller's token does not count any more.
            Forbidden: the caller may not make this call any more.
        """
        if self.shown is None or self.caller_kind not in (Kind.USER, Kind.TASK):
            async for response in responses:
                yield response
            return
        looked = time.monotonic()
        coming: asyncio.Future[object] | None = None
        try:
            while True:
                coming = coming or asyncio.ensure_future(anext(responses))
                await asyncio.wait([coming], timeout=LOOK_AGAIN)
                if time.monotonic() - looked >= LOOK_AGAIN:
                    await self._look_again(self.shown)
                    looked = time.monotonic()
                if coming.done():
                    done, coming = coming, None
                    try:
                        response = done.result()
                    except StopAsyncIteration:
                        return
                    yield response
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.wait([coming])

    async def _look_again(self, shown: Presented) -> None:
        try:
            caller = await self.door.authenticator.caller(shown)
        except StoreUnavailable:
            return  # nobody can tell now
        check_may(caller, self.door.wanted, self.method)

    def about(self) -> dict[str, str]:
        """Return the ids that the request names, for the log."""
        named = [(name, getattr(self.request, field, "")) for field, name in _SUBJECTS.items()]
        return {name: _preview(value) for name, value in named if value}

    async def refuse(self, error: Exception) -> NoReturn:
        """Log the error, once, and end the call with its status."""
        if isinstance(error, grpc.aio.AbortError):  # the handler has answered by itself
            self.code = _CODE_NAMES.get(_number(self.context.code()), "UNKNOWN")
            raise error
        error = _told(_only_cause(error))
        answer = answer_to(error)
        self.code = answer.code.name
        if answer is INTERNAL:
            log.error("call failed", method=self.method, exc_info=error, **self.about())
        else:
            tell = log.warning if answer.code in _WORTH_A_WARNING else log.info
            about = self.about()
            tell("call refused", method=self.method, code=self.code, reason=str(error), **about)
        status = rpc_status.to_status(to_status(error, self.request_id))
        trailing = (*status.trailing_metadata, (REQUEST_ID, self.request_id))
        await self.context.abort(status.code, status.details, trailing)

    def end(self) -> None:
        """Count the call."""
        if self.counted:
            self.door.limits.close_stream(self.counted)
        metrics.rpc_requests.labels(self.method, self.code).inc()
        if self.is_stream:
            metrics.streams_open.labels(self.method).dec()
        else:
            metrics.rpc_seconds.labels(self.method).observe(time.perf_counter() - self.started)


def _origin(caller: Caller, request_id: str, method: str) -> Origin:
    return Origin(
        caller.namespace,
        caller.name,
        caller.kind.value,
        caller.credential_id,
        caller.peer,
        request_id,
        method,
    )


def _host(peer: str) -> str:
    """Return the address without the port: each connection has another."""
    return peer.rpartition(":")[0] or peer


def _certificate_names(context: Context) -> tuple[str, ...]:
    """Return the names of the client's certificate, which the transport has verified."""
    found = context.auth_context().get("x509_subject_alternative_name", ())
    return tuple(name.decode(errors="replace") for name in found)


def _surround(handler: Handler, door: Door) -> Handler:
    kind, build = _BUILDERS[handler.request_streaming, handler.response_streaming]
    behaviour: Behaviour = getattr(handler, kind)
    is_stream = handler.request_streaming or handler.response_streaming
    if inspect.isasyncgenfunction(behaviour):
        surrounded = _around_generator(behaviour, door)
    elif inspect.iscoroutinefunction(behaviour):
        surrounded = _around_coroutine(behaviour, door, is_stream=is_stream)
    else:
        raise TypeError(f"{door.method} is not asynchronous")
    deserialize = handler.request_deserializer
    if not handler.request_streaming and deserialize is not None:
        deserialize = _or_its_error(deserialize)
    return build(surrounded, deserialize, handler.response_serializer)


def _or_its_error(deserialize: "Callable[[bytes], Any]") -> "Callable[[bytes], Any]":
    """Return a deserializer that returns the error: raised, it would not pass through here."""

    def try_it(sent: bytes) -> object:
        try:
            return deserialize(sent)
        except DecodeError as error:
            return error

    return try_it


def _around_coroutine(behaviour: Behaviour, door: Door, *, is_stream: bool) -> Behaviour:
    async def answer(request: object, context: Context) -> object:
        call = Call(door, context, request, is_stream=is_stream)
        try:
            await call.identify()
            if isinstance(request, DecodeError):
                raise request
            return await behaviour(request, context)
        except Exception as error:
            await call.refuse(error)
        except CancelledError:
            call.code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            call.end()

    return answer


def _around_generator(behaviour: Behaviour, door: Door) -> Behaviour:
    async def answer(request: object, context: Context) -> AsyncIterator[object]:
        call = Call(door, context, request, is_stream=True)
        try:
            await call.identify()
            if isinstance(request, DecodeError):
                raise request
            async with aclosing(behaviour(request, context)) as responses:
                async for response in call.while_known(responses):
                    yield response
        except Exception as error:
            await call.refuse(error)
        except (CancelledError, GeneratorExit):
            call.code = grpc.StatusCode.CANCELLED.name
            raise
        finally:
            call.end()

    return answer


def _only_cause(error: Exception) -> Exception:
    """Return what a TaskGroup wrapped, where only one thing went wrong."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _told(error: Exception) -> Exception:
    """Return an error as its caller should see it: bytes that are no message are bad input."""
    if isinstance(error, DecodeError):
        return Invalid([Violation("request", "is not a message of this method's type")])
    return error


def _preview(value: object) -> str:
    return str(value)[:ID_PREVIEW]


def _number(code: object) -> int:
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return number if isinstance(number, int) else -1
