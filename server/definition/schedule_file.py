"""A file of schedules, TOML or YAML: the server keeps its schedules as it says."""

import re
import tomllib
from collections.abc import Mapping as Map
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import PurePath

from server.definition.grammar import CRON
from server.definition.problem import Place, Report
from server.definition.record import Cron
from server.definition.schedule import NotAScheduleError, Schedule, moment_in
from server.definition.shape import BAD, Field, ListOf, Record, Text
from server.definition.yaml_tree import Listing, Mapping, Node, Scalar, parse, refused
from server.domain.schedule import CatchUp, Overlap, Plan, check_span
from server.domain.scheduling import FileSchedule

SOME_DAY = datetime.fromisoformat("2024-01-01T00:00:00+00:00")
"""From when on a schedule has to strike at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry(Cron):
    """One schedule of a file."""

    name: str
    pipeline: str
    namespace: str = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    path: str = ""
    schedules: tuple[_Entry, ...] = field(default=())


_FILE = Record(
    _File,
    "Schedules.",
    {
        "schedules": Field(
            ListOf(
                Record(
                    _Entry,
                    "A schedule.",
                    {
                        "name": Field(Text(at_most=256), "Unique in the namespace.", True),
                        "pipeline": Field(Text(at_most=256), "The pipeline's name.", True),
                        "namespace": Field(Text(at_most=63), "Default: default."),
                        **CRON.known,
                    },
                )
            ),
            "All there are.",
            True,
        )
    },
)


def read_schedules(name: str, data: bytes) -> list[FileSchedule]:
    """Return what a file says; its name tells whether it is TOML or YAML.

    Raises:
        Refused: it is malformed.
    """
    toml = PurePath(name).suffix == ".toml"
    root = _toml(data) if toml else parse(data)
    report = Report()
    found = _FILE.read(root, "", report)
    report.done()
    if found is BAD or not isinstance(found, _File):
        return []
    seen: set[tuple[str, str]] = set()
    for entry in found.schedules:
        _check(entry, report)
        if (entry.namespace, entry.name) in seen:
            report.fail(f"{entry.path}.name", f"an earlier schedule is called {entry.name!r}")
        seen.add((entry.namespace, entry.name))
    report.done()
    return [
        FileSchedule(entry.namespace, entry.name, entry.pipeline, plan_of_cron(entry))
        for entry in found.schedules
    ]


def _check(entry: _Entry, report: Report) -> None:
    if "#" in entry.name:
        report.fail(f"{entry.path}.name", "must not contain '#': so are those of pipelines called")
    try:
        Schedule(entry.schedule, entry.zone).check(SOME_DAY)
    except NotAScheduleError as error:
        place = "zone" if "time zone" in str(error) else "schedule"
        report.fail(f"{entry.path}.{place}", str(error))
        return
    for name in ("start", "end"):
        try:
            moment_in(getattr(entry, name), entry.zone)
        except NotAScheduleError as error:
            report.fail(f"{entry.path}.{name}", str(error))
            return
    with report.checks() as checks:
        check_span(
            checks,
            moment_in(entry.start, entry.zone),
            moment_in(entry.end, entry.zone),
            (f"{entry.path}.start", f"{entry.path}.end"),
        )


def plan_of_cron(cron: Cron) -> Plan:
    """Return what a file says of the clock; it has been checked."""
    return Plan(
        cron=cron.schedule,
        zone=cron.zone,
        jitter=cron.jitter,
        starts_at=moment_in(cron.start, cron.zone),
        ends_at=moment_in(cron.end, cron.zone),
        catch_up=CatchUp(cron.catch_up),
        catch_up_window=cron.catch_up_window,
        catch_up_limit=cron.catch_up_limit,
        overlap=Overlap(cron.overlap),
        branch=cron.branch,
        inputs=dict(cron.inputs),
    )


_AT = re.compile(r" ?\(at line (\d+), column (\d+)\)")
_TABLE = re.compile(r"\s*\[\[\s*[\"']?schedules[\"']?\s*\]\]")
_ENTRY = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=")


def _toml(data: bytes) -> Node:
    """Return TOML as a tree. Its parser tells no places: those of the usual form are found here."""
    try:
        text = data.decode()
        tree = _node(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        found = _AT.search(str(error))
        place = Place(int(found[1]), int(found[2])) if found else Place()
        raise refused(place, f"not TOML: {_AT.sub('', str(error))}") from None
    _find_places(tree, text)
    return tree


def _find_places(tree: Node, text: str) -> None:
    """Note in which line each schedule, and each of its fields, stands."""
    schedules = tree.entries.get("schedules") if isinstance(tree, Mapping) else None
    if schedules is None or not isinstance(schedules[1], Listing):
        return
    number = -1
    for line, words in enumerate(text.splitlines(), 1):
        if _TABLE.match(words):
            number += 1
            if number < len(schedules[1].items):
                schedules[1].items[number].place = Place(line)
        elif number >= 0 and (found := _ENTRY.match(words)) is not None:
            item = schedules[1].items[number] if number < len(schedules[1].items) else None
            if isinstance(item, Mapping) and found[1] in item.entries:
                key, value = item.entries[found[1]]
                key.place = value.place = Place(line)


def _node(value: object) -> Node:
    if isinstance(value, Map):
        made = Mapping(Place())
        for key, inner in value.items():
            made.entries[str(key)] = (Scalar(Place(), key, str(key)), _node(inner))
        return made
    if isinstance(value, list):
        return Listing(Place(), [_node(inner) for inner in value])
    if isinstance(value, date):  # and moments, which are dates too
        return Scalar(Place(), value.isoformat(), value.isoformat(), "'")
    if isinstance(value, bool):
        return Scalar(Place(), value, str(value).lower())
    if isinstance(value, int | float):
        return Scalar(Place(), value, str(value))
    return Scalar(Place(), str(value), str(value), "'")
