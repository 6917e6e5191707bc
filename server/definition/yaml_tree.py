"""YAML as a tree in which everything has a place, built from events so that every cap holds early.

What a file can ask for is bounded before it is built: its size, how deep it nests, how often it
repeats itself, and how much it is with every alias written out. Keys are text and appear once; text
that is not in quotes means what the YAML 1.2 core schema says, so `on`, `yes` and `0777` are what
they look like.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from server.definition.problem import Place, Problem, Refused

LARGEST = 1024 * 1024
"""Bytes of a file."""
DEEPEST = 32
MOST_ALIASES = 1_000
MOST_NODES = 100_000
"""Values, keys and collections, with each alias written out."""
MERGE = "<<"

_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"[-+]?[0-9]{1,40}|0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_TRUE = frozenset({"true", "True", "TRUE"})
_FALSE = frozenset({"false", "False", "FALSE"})
_NOTHING = frozenset({"", "~", "null", "Null", "NULL"})
_STRANGE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff\ud800-\udfff]")

Event: TypeAlias = Any
"""One of ruamel.yaml's, whose attributes have no types."""
Plain: TypeAlias = str | int | float | bool | None


@dataclass(slots=True)
class Scalar:
    """One value."""

    place: Place
    value: Plain
    text: str
    """As it is written, without quotes."""
    style: str = ""
    """`'`, `"`, `|` or `>`; empty for text without quotes."""
    weight: int = 1
    height: int = 1

    def inside(self, offset: int) -> Place:
        """Return the place of a character of the text; of a folded text, where it begins."""
        if self.style == "|":
            lines = self.text[:offset].split("\n")
            return Place(self.place.line + len(lines), len(lines[-1]) + 1)
        if self.style == ">" or "\n" in self.text[:offset]:
            return self.place
        return self.place.right(offset + len(self.style))


@dataclass(slots=True)
class Listing:
    """Values in order."""

    place: Place
    items: list["Node"] = field(default_factory=list)
    weight: int = 1
    height: int = 1


@dataclass(slots=True)
class Mapping:
    """Values by key, in the order of the file."""

    place: Place
    entries: dict[str, tuple[Scalar, "Node"]] = field(default_factory=dict)
    weight: int = 1
    height: int = 1


Node: TypeAlias = Scalar | Listing | Mapping


def parse(data: bytes) -> Node:
    """Return the one document in a file's bytes.

    Raises:
        Refused: it is not YAML, or more than a file may be.
    """
    if len(data) > LARGEST:
        raise refused(Place(), f"the file is larger than {LARGEST >> 20} MiB")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        raise refused(_after(before), "this byte is not UTF-8 text") from None
    if strange := _STRANGE.search(text):
        raise refused(_after(text[: strange.start()]), "this character cannot be in a YAML file")
    return _Builder().build(text)


def refused(place: Place, why: str, path: str = "") -> Refused:
    """Return a refusal with one problem."""
    return Refused([Problem(place, path, why)])


def _after(text: str) -> Place:
    lines = text.split("\n")
    return Place(len(lines), len(lines[-1]) + 1)


class _Builder:
    """Turns events into a tree, without recursion."""

    def __init__(self) -> None:
        self.open: list[_Open] = []
        self.anchors: dict[str, Node | None] = {}
        """None is one whose node is not closed yet."""
        self.aliases = 0
        self.weight = 0
        self.root: Node | None = None

    def build(self, text: str) -> Node:
        for event in _events(text):
            handle = getattr(self, f"_{type(event).__name__}", None)
            if handle is not None:
                handle(event)
        return self.root or Scalar(Place(), None, "")

    def _DocumentStartEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        if self.root is not None:
            raise refused(_place(event), "a second document begins here; a file has one pipeline")

    def _ScalarEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        style = event.style or ""
        value = _meaning(event.value) if event.implicit[0] and not style else event.value
        self._refuse_tag(event, event.tag if not any(event.implicit) else None)
        self._add(Scalar(_place(event), value, event.value, style), event)

    def _AliasEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        self.aliases += 1
        if self.aliases > MOST_ALIASES:
            raise refused(_place(event), f"the file has more than {MOST_ALIASES} aliases")
        if event.anchor not in self.anchors:
            raise refused(_place(event), f"there is no anchor &{event.anchor} before this alias")
        node = self.anchors[event.anchor]
        if node is None:
            raise refused(_place(event), f"the alias *{event.anchor} is inside what it stands for")
        self._add(node, event, anchored=False)

    def _SequenceStartEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        self._begin(Listing(_place(event)), event)

    def _MappingStartEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        self._begin(Mapping(_place(event)), event)

    def _SequenceEndEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        self._end()

    def _MappingEndEvent(self, event: Event) -> None:  # noqa: N802 - the event's name
        self._end()

    def _begin(self, node: Listing | Mapping, event: Event) -> None:
        self._refuse_tag(event, None if event.implicit else event.tag)
        if len(self.open) >= DEEPEST:
            raise refused(node.place, f"nested deeper than {DEEPEST} levels")
        if self.open and self.open[-1].wants_key:
            raise refused(node.place, "a key must be text, not a list or a mapping")
        if event.anchor:
            self.anchors[event.anchor] = None
        self._weigh(1, node.place)
        self.open.append(_Open(node, event.anchor))

    def _end(self) -> None:
        closed = self.open.pop()
        node = closed.node
        if isinstance(node, Mapping):
            closed.merge()
        if closed.anchor:
            self.anchors[closed.anchor] = node
        self._place_in_parent(node)

    def _add(self, node: Node, event: Event, *, anchored: bool = True) -> None:
        place = _place(event)
        self._weigh(node.weight, place)
        if len(self.open) + node.height - 1 > DEEPEST:
            raise refused(
                place, f"nested deeper than {DEEPEST} levels with its aliases written out"
            )
        if anchored and event.anchor:
            self.anchors[event.anchor] = node
        self._place_in_parent(node, place)

    def _weigh(self, weight: int, place: Place) -> None:
        self.weight += weight
        if self.weight > MOST_NODES:
            text = f"the file holds more than {MOST_NODES} values, with its aliases written out"
            raise refused(place, text)

    def _place_in_parent(self, node: Node, place: Place | None = None) -> None:
        if self.open:
            self.open[-1].add(node, place or node.place)
        else:
            self.root = node

    def _refuse_tag(self, event: Event, tag: str | None) -> None:
        if tag and tag != "!":
            raise refused(
                _place(event), f"the tag {str(tag)[:64]!r} means nothing here; leave it out"
            )


@dataclass(slots=True)
class _Open:
    """A collection that is not closed yet."""

    node: Listing | Mapping
    anchor: str | None
    key: Scalar | None = None
    merged: list[tuple[Place, Node]] = field(default_factory=list)

    @property
    def wants_key(self) -> bool:
        return isinstance(self.node, Mapping) and self.key is None

    def add(self, node: Node, place: Place) -> None:
        self.node.weight += node.weight
        self.node.height = max(self.node.height, node.height + 1)
        if isinstance(self.node, Listing):
            self.node.items.append(node)
        elif self.key is None:
            self._take_key(node, place)
        else:
            key, self.key = self.key, None
            if key.text == MERGE and not key.style:
                self.merged.append((place, node))
            else:
                self.node.entries[key.text] = (key, node)

    def _take_key(self, node: Node, place: Place) -> None:
        if not isinstance(node, Scalar):
            raise refused(place, "a key must be text, not a list or a mapping")
        assert isinstance(self.node, Mapping)  # noqa: S101 - for the type checker
        if node.text in self.node.entries:
            first = self.node.entries[node.text][0].place
            text = f"the key {node.text[:64]!r} is on line {first.line} already"
            raise refused(place, text)
        self.key = Scalar(place, node.value, node.text, node.style)

    def merge(self) -> None:
        """Take in what `<<` names; what the mapping says itself goes first."""
        assert isinstance(self.node, Mapping)  # noqa: S101 - for the type checker
        for place, node in self.merged:
            for source in node.items if isinstance(node, Listing) else [node]:
                if not isinstance(source, Mapping):
                    raise refused(place, "<< takes a mapping, or a list of mappings")
                for key, entry in source.entries.items():
                    self.node.entries.setdefault(key, entry)


def _events(text: str) -> Iterator[Any]:
    """Yield the parser's events.

    Raises:
        Refused: the text is not YAML.
    """
    from ruamel.yaml import YAML  # late: a command that reads no file need not wait for it
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        yield from YAML(typ="rt", pure=True).parse(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place()
        context = f" ({error.context})" if error.context and error.problem else ""
        raise refused(place, f"not YAML: {error.problem or error.context}{context}") from None
    except YAMLError as error:
        raise refused(Place(), f"not YAML: {error}") from None
    except (ValueError, IndexError, KeyError, AttributeError, AssertionError) as error:
        # The library's scanner trips over some texts that are not YAML in these ways.
        raise refused(Place(), f"not YAML: {error or type(error).__name__}") from None


def _place(event: Event) -> Place:
    mark = event.start_mark
    return Place(mark.line + 1, mark.column + 1)


def _meaning(text: str) -> Plain:
    """Return what text without quotes means."""
    if text in _NOTHING:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _WHOLE.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(text) if _NUMBER.fullmatch(text) else text
