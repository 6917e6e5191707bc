"""Random messages of any type, built from its descriptor: legal bytes, rarely legal requests."""

from collections.abc import Sequence

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import strategies as st

BITS = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
DEPTH = 4
WORDS = (
    "",
    "a",
    "os",
    "noop",
    "high",
    "created_at",
    "true",
    "MUSTER_X",
    "a\0b",
    "\x1b[31m",
    "..",
    "/",
)


def messages(kind: Descriptor, words: Sequence[str], depth: int = DEPTH) -> st.SearchStrategy:
    """Return messages of a type, some of whose strings are these words."""
    fields = {field.name: _values(field, words, depth) for field in kind.fields}
    return st.fixed_dictionaries({}, optional=fields).map(lambda chosen: _build(kind, chosen))


def _build(kind: Descriptor, chosen: dict) -> Message:
    message = GetMessageClass(kind)()
    for name, value in chosen.items():
        target = getattr(message, name)
        if kind.fields_by_name[name].message_type is None:
            if kind.fields_by_name[name].is_repeated:
                target.extend(value)
            else:
                setattr(message, name, value)
        elif isinstance(value, dict):
            for key, item in value.items():
                target[key] = item
        elif isinstance(value, list):
            target.extend(value)
        else:
            target.CopyFrom(value)
    return message


def _values(field: FieldDescriptor, words: Sequence[str], depth: int) -> st.SearchStrategy:
    if field.message_type and field.message_type.GetOptions().map_entry:
        key, value = field.message_type.fields
        return st.dictionaries(_one(key, words, depth), _one(value, words, depth), max_size=3)
    if field.is_repeated:
        return st.lists(_one(field, words, depth), max_size=3)
    return _one(field, words, depth)


def _one(field: FieldDescriptor, words: Sequence[str], depth: int) -> st.SearchStrategy:
    match field.cpp_type:
        case FieldDescriptor.CPPTYPE_MESSAGE:
            return messages(field.message_type, words, depth - 1 if depth else 0)
        case FieldDescriptor.CPPTYPE_STRING if field.type == FieldDescriptor.TYPE_BYTES:
            return st.binary(max_size=20)
        case FieldDescriptor.CPPTYPE_STRING:
            return st.sampled_from([*WORDS, *words]) | st.text(max_size=20)
        case FieldDescriptor.CPPTYPE_ENUM:
            return st.integers(0, 9) | st.integers(-(2**31), 2**31 - 1)
        case FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        case FieldDescriptor.CPPTYPE_UINT32:
            return st.integers(0, 2**32 - 1)
        case FieldDescriptor.CPPTYPE_DOUBLE:
            return st.floats()
    limit = 2 ** BITS[field.cpp_type]
    return (
        st.integers(-1, 9) | st.sampled_from([-limit, limit - 1]) | st.integers(-limit, limit - 1)
    )
