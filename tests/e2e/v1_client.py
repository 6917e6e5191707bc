"""A client of the released v1 API, made from the contract's table alone.

It has its own descriptor pool, so it knows none of what we added: a server that works with it
works with the clients that are out there.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tools.contract.table_to_image import image, read

Fields = dict[str, Any]


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in image(read()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _pool()


class V1:
    """Calls any v1 method with plain dictionaries; fields keep their names of the table.

    64-bit numbers are integers and enums are names on both sides. Fields that have no value are
    in answers too. Unary: `await v1.call(service, method, {…})`. Streams: `async for answer in
    v1.stream(service, method, requests)`, where `requests` is a dictionary, or any iterable of
    them where the client streams.
    """

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float = 30) -> None:
        self._channel = channel
        self._timeout = timeout

    async def call(
        self, service: str, method: str, request: Fields | None = None, **options: Any
    ) -> Fields:
        """Return the answer of a unary method."""
        found = method_of(service, method)
        stub = self._channel.unary_unary(*_stub_arguments(found))
        answer = await stub(
            to_message(found.input_type, request or {}), **{"timeout": self._timeout} | options
        )
        return to_fields(answer)

    async def send(
        self,
        service: str,
        method: str,
        requests: Iterable[Fields] | AsyncIterable[Fields],
        **options: Any,
    ) -> Fields:
        """Return the one answer to many requests."""
        found = method_of(service, method)
        stub = self._channel.stream_unary(*_stub_arguments(found))
        answer = await stub(
            _messages(found.input_type, requests), **{"timeout": self._timeout} | options
        )
        return to_fields(answer)

    async def stream(
        self,
        service: str,
        method: str,
        requests: Fields | Iterable[Fields] | AsyncIterable[Fields],
        **options: Any,
    ) -> AsyncIterator[Fields]:
        """Yield the answers of a method that streams them."""
        found = method_of(service, method)
        options = {"timeout": self._timeout} | options
        if found.client_streaming:
            stub = self._channel.stream_stream(*_stub_arguments(found))
            call = stub(_messages(found.input_type, requests), **options)
        else:
            stub = self._channel.unary_stream(*_stub_arguments(found))
            call = stub(to_message(found.input_type, requests), **options)
        try:
            async for answer in call:
                yield to_fields(answer)
        finally:
            call.cancel()


def method_of(service: str, method: str) -> MethodDescriptor:
    """Return the description of a method of the table."""
    return POOL.FindServiceByName(service).methods_by_name[method]


def to_message(kind: Descriptor, fields: Fields) -> Message:
    """Return the message with these fields; an unknown one is an error."""
    return json_format.ParseDict(fields, GetMessageClass(kind)())


def to_fields(message: Message) -> Fields:
    """Return a message's fields, with 64-bit integers as integers."""
    fields = json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return _with_integers(fields, message.DESCRIPTOR)


def _with_integers(fields: Fields, kind: Descriptor) -> Fields:
    """Turn the strings that JSON makes of 64-bit integers back into integers."""
    for name, value in fields.items():
        field = kind.fields_by_name[name]
        if field.cpp_type == field.CPPTYPE_INT64:
            fields[name] = int(value)
        elif field.message_type and not field.message_type.GetOptions().map_entry:
            for part in value if isinstance(value, list) else [value]:
                _with_integers(part, field.message_type)
    return fields


def _stub_arguments(method: MethodDescriptor) -> tuple[str, Any, Any]:
    answer = GetMessageClass(method.output_type)
    path = f"/{method.containing_service.full_name}/{method.name}"
    return path, lambda message: message.SerializeToString(), answer.FromString


def _messages(
    kind: Descriptor, requests: Iterable[Fields] | AsyncIterable[Fields]
) -> Iterable[Message] | AsyncIterable[Message]:
    """Return the messages; those of a list at once, since gRPC hides errors of its iterators."""
    if isinstance(requests, AsyncIterable):
        return (to_message(kind, fields) async for fields in requests)
    return [to_message(kind, fields) for fields in requests]
