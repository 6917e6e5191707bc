"""A pipeline file is read: its shape first, then what its parts have to do with each other."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial

from server.definition.expression import TEMPLATE, Fault, Scope, find_faults, find_template_faults
from server.definition.extent import (
    MOST_COMPARISONS,
    check_extent,
    combinations,
    comparisons,
)
from server.definition.grammar import PIPELINE
from server.definition.matrix import MOST_CELLS, cells_of
from server.definition.problem import Refused, Report
from server.definition.record import Cron, Input, Job, PipelineFile, Stage
from server.definition.schedule import NotAScheduleError, Schedule, moment_in
from server.definition.selector import SelectorSyntaxError, parse_selector
from server.definition.shape import BAD
from server.definition.yaml_tree import Listing, Node, Scalar, parse
from server.definition.yaml_tree import Mapping as MappingNode
from server.domain.artifact import path_problem

SOME_DAY = datetime(2024, 1, 1, tzinfo=UTC)
"""From when on a schedule has to strike at all."""
MOST_EXPRESSIONS = 4096
"""Different expressions of a file, as many as are kept parsed; those in large scopes count more."""
LARGE = 50
"""Inputs and needs with which an expression counts twice."""
MOST_LABELS = 64
"""Labels that a job asks for."""

__all__ = ["Refused", "read_file"]


def read_file(data: bytes | str, report: Report | None = None) -> PipelineFile:
    """Return what a pipeline file says; `report` learns where everything stands.

    Raises:
        Refused: it is malformed; has every problem that was found, each with its place.
    """
    root = parse(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    report = report or Report()
    if isinstance(root, Scalar) and root.value is None:
        report.fail("", "the file is empty; it needs a name and stages", root.place)
        report.done()
    found = PIPELINE.read(root, "", report)
    if found is BAD:
        report.done()
    assert isinstance(found, PipelineFile)  # noqa: S101 (what PIPELINE makes)
    if not report.problems:
        _Semantics(found, report, root).check()
    report.done()
    return found


class _Semantics:
    """What one part of a file demands of another."""

    def __init__(self, file: PipelineFile, report: Report, root: Node) -> None:
        self.file = file
        self.report = report
        self.texts = dict(_texts(root, ""))
        self.jobs = {job.name: job for _, job in file.jobs()}
        self.stage_of = {
            job.name: number for number, stage in enumerate(file.stages) for job in stage.jobs
        }
        self.inputs = {name: each.type for name, each in file.inputs.items()}
        self.names = frozenset(self.jobs)
        self.cells = dict.fromkeys(self.jobs, 1)
        self.comparisons = 0
        self.expressions = 0
        self.known: dict[tuple[object, ...], list[Fault]] = {}
        self.values = {name: value for name, value in file.env.items() if "${{" in value}

    def check(self) -> None:
        """Note all that does not go together."""
        self._check_names()
        for each in self.file.inputs.values():
            self._check_input(each)
        self._check_triggers()
        self._check_defaults()
        for number, stage in enumerate(self.file.stages):
            self._check_stage(number, stage)
        if not self.report.problems:
            check_extent(self.file, self.cells, self.report)

    def _check_names(self) -> None:
        seen: dict[str, str] = {}
        for stage in self.file.stages:
            self._unique(seen, stage.name, f"{stage.path}.name", "stage")
        seen = {}
        for _, job in self.file.jobs():
            self._unique(seen, job.name, f"{job.path}.name", "job")

    def _unique(self, seen: dict[str, str], name: str, path: str, what: str) -> None:
        if name in seen:
            line = self.report.place(seen[name]).line
            self.report.fail(path, f"a {what} on line {line} is called {name!r} already")
        seen.setdefault(name, path)

    # ---- inputs and triggers

    def _check_input(self, each: Input) -> None:
        path = each.path
        if (each.type == "choice") != bool(each.options):
            words = "needs `options`" if each.type == "choice" else "must be choice with `options`"
            self.report.fail(f"{path}.type", words)
            return
        if each.default is None:
            return
        wanted = {
            "string": isinstance(each.default, str),
            "choice": str(each.default) in each.options,
            "integer": isinstance(each.default, int) and not isinstance(each.default, bool),
            "number": isinstance(each.default, int | float) and not isinstance(each.default, bool),
            "boolean": isinstance(each.default, bool),
        }
        if not wanted[each.type]:
            kind = f"one of {', '.join(each.options)}" if each.options else f"of type {each.type}"
            self.report.fail(f"{path}.default", f"must be {kind}")

    def _check_triggers(self) -> None:
        triggers = self.file.triggers
        scope = Scope(self.inputs)
        for each in (triggers.push, triggers.tag, triggers.pull_request, triggers.webhook):
            if each is not None and each.condition:
                self._check_condition(f"{each.path}.if", each.condition, scope)
        for after in triggers.pipeline:
            if after.name == self.file.name:
                self.report.fail(
                    f"{after.path}.name", "a pipeline cannot start itself when it ends"
                )
        for cron in triggers.cron:
            self._check_cron(cron)
            for name in cron.inputs:
                self._check_known_input(name, f"{cron.path}.inputs[{name}]")

    def _check_cron(self, cron: Cron) -> None:
        path = f"{cron.path}.schedule"
        path = path if path in self.report.places else cron.path
        try:
            Schedule(cron.schedule, cron.zone).check(SOME_DAY)
        except NotAScheduleError as error:
            there = f"{cron.path}.zone" if "time zone" in str(error) else path
            self.report.fail(there, str(error))
            return
        for name in ("start", "end"):
            try:
                moment_in(getattr(cron, name), cron.zone)
            except NotAScheduleError as error:
                self.report.fail(f"{cron.path}.{name}", str(error))

    def _check_known_input(self, name: str, path: str) -> None:
        if name not in self.inputs:
            hint = self.report.hint(name, self.inputs)
            self.report.fail(path, f"the pipeline has no input {name!r}{hint}")

    # ---- jobs

    def _check_stage(self, number: int, stage: Stage) -> None:
        if stage.condition:
            scope = Scope(self.inputs)
            self._check_condition(f"{stage.path}.if", stage.condition, scope)
        for job in stage.jobs:
            self._check_kind(job)
            self._check_needs(number, job)
            self._check_take(number, job)
            self._check_where(job)
            self._check_matrix(job)
            self._check_expressions(job)

    def _check_kind(self, job: Job) -> None:
        kinds = {
            "commands": bool(job.commands),
            "steps": bool(job.steps),
            "approval": job.approval is not None,
        }
        given = [name for name, there in kinds.items() if there]
        if not given:
            self.report.fail(job.path, "a job has `commands`, `steps` or `approval`")
        for name in given[1:]:
            self.report.fail(f"{job.path}.{name}", f"a job has {given[0]} or {name}, not both")
        if job.approval is not None:
            for name in ("env", "secrets", "matrix", "artifacts", "keep_workspace", "outputs"):
                if getattr(job, name):
                    text = "an approval runs nothing and has no use for it"
                    self.report.fail(f"{job.path}.{name}", text)
        for step in job.steps:
            if bool(step.commands) == bool(step.uses):
                self.report.fail(step.path, "a step has `commands`, or `uses` with a plugin")
            elif step.settings and not step.uses:
                self.report.fail(f"{step.path}.with", "only a plugin is given something")
        for name in job.secrets:
            if name in job.env:
                path = f"{job.path}.secrets[{name}]"
                self.report.fail(path, f"the job's `env` has {name} already")

    def _check_needs(self, number: int, job: Job) -> None:
        for place, name in enumerate(job.needs):
            path = f"{job.path}.needs[{place}]"
            path = path if path in self.report.places else f"{job.path}.needs"
            if name == job.name:
                self.report.fail(path, "a job cannot wait for itself")
            elif name not in self.jobs:
                hint = self.report.hint(name, self.jobs)
                self.report.fail(path, f"there is no job {name!r}{hint}")
            elif self.stage_of[name] > number:
                text = f"job {name!r} is in a later stage, which waits for this one"
                self.report.fail(path, text)

    def _check_take(self, number: int, job: Job) -> None:
        before: set[str] | None = None
        for take in job.take:
            path = f"{take.path}.job" if f"{take.path}.job" in self.report.places else take.path
            if take.job not in self.jobs:
                hint = self.report.hint(take.job, self.jobs)
                self.report.fail(path, f"there is no job {take.job!r}{hint}")
                continue
            if before is None:
                before = self._before(number, job)
            if take.job not in before:
                text = f"job {take.job!r} does not come before this one; add it to `needs`"
                self.report.fail(path, text)
            elif self.jobs[take.job].artifacts is None:
                self.report.fail(path, f"job {take.job!r} keeps no `artifacts`")
            if take.into and path_problem(take.into):
                text = "must be a folder in the workspace, such as dist"
                self.report.fail(f"{take.path}.into", text)

    def _before(self, number: int, job: Job) -> set[str]:
        """Return the jobs that have ended before one starts."""
        found = {name for name, stage in self.stage_of.items() if stage < number}
        in_turn = next(stage for stage in self.file.stages if job in stage.jobs)
        if not in_turn.parallel:
            found |= {each.name for each in in_turn.jobs[: in_turn.jobs.index(job)]}
        left = list(job.needs)
        while left:
            name = left.pop()
            if name not in found and name in self.jobs:
                found.add(name)
                left += self.jobs[name].needs
        return found

    def _check_defaults(self) -> None:
        defaults = self.file.defaults
        if defaults.selector and "${{" not in defaults.selector:
            self._check_selector(defaults.selector, "defaults.selector")
        self._check_labels(defaults.labels, "defaults.labels")

    def _check_labels(self, labels: Mapping[str, str], path: str) -> None:
        if len(labels) > MOST_LABELS:
            self.report.fail(path, f"must have at most {MOST_LABELS}, has {len(labels)}")

    def _check_where(self, job: Job) -> None:
        if job.selector and "${{" not in job.selector:
            self._check_selector(job.selector, f"{job.path}.selector")
        if job.labels is not None:
            self._check_labels(job.labels, f"{job.path}.labels")
        elif len(self.file.defaults.labels) > MOST_LABELS:
            return
        known = set(job.matrix.axes) if job.matrix is not None else set()
        if job.matrix is not None:
            known |= {name for cell in job.matrix.include for name in cell}
        values = {"image": self.file.image_of(job), "selector": self.file.selector_of(job)}
        values |= {f"labels[{k}]": v for k, v in self.file.labels_of(job).items()}
        for name, value in values.items():
            for found in TEMPLATE.finditer(value or ""):
                self._check_cell_value(job, name, found[1].strip(), known)

    def _check_cell_value(self, job: Job, name: str, inner: str, known: set[str]) -> None:
        root, _, member = inner.partition(".")
        if root != "matrix" or member not in known:
            there_are = ", ".join(f"matrix.{each}" for each in sorted(known)) or "no matrix"
            text = f"only values of the job's matrix can be used here; there is {there_are}"
            self.report.fail(f"{job.path}.{name}", text)

    def _check_selector(self, text: str, path: str) -> None:
        try:
            parse_selector(text)
        except SelectorSyntaxError as error:
            self._take(path, [Fault(error.position, error.wanted)])

    def _check_matrix(self, job: Job) -> None:
        matrix = job.matrix
        if matrix is None:
            return
        for place, cell in enumerate(matrix.exclude):
            for name in cell:
                if name not in matrix.axes:
                    path = f"{matrix.path}.exclude[{place}][{name}]"
                    hint = self.report.hint(name, matrix.axes)
                    self.report.fail(path, f"the matrix has no {name!r}{hint}")
        size = combinations(matrix)
        if size > 100 * MOST_CELLS:
            self.report.fail(matrix.path, f"has {size} cells; at most {MOST_CELLS} are allowed")
            return
        self.comparisons += comparisons(matrix)
        if self.comparisons > MOST_COMPARISONS:
            text = f"has {size} combinations, and too many of `include` and `exclude` for them"
            self.report.fail(matrix.path, text)
            return
        cells = cells_of(matrix)
        self.cells[job.name] = len(cells)
        if len(cells) > MOST_CELLS:
            text = f"has {len(cells)} cells; at most {MOST_CELLS} are allowed"
            self.report.fail(matrix.path, text)
        elif not cells:
            self.report.fail(matrix.path, "has no cell left: `exclude` takes out all of them")

    def _check_expressions(self, job: Job) -> None:
        scope = self._scope(job)
        if job.condition:
            self._check_condition(f"{job.path}.if", job.condition, scope)
        for name, value in self.values.items():
            if name not in job.env:
                self._check_value(f"env[{name}]", value, scope)
        for name, value in job.env.items():
            self._check_value(f"{job.path}.env[{name}]", value, scope)
        for step in job.steps:
            for name, setting in step.settings.items():
                if isinstance(setting, str):
                    self._check_value(f"{step.path}.with[{name}]", setting, scope)

    def _check_condition(self, path: str, text: str, scope: Scope) -> None:
        self._take(path, self._faults(path, text, scope, condition=True))

    def _check_value(self, path: str, text: str, scope: Scope) -> None:
        if "${{" in text:
            self._take(path, self._faults(path, text, scope, condition=False))

    def _faults(self, path: str, text: str, scope: Scope, *, condition: bool) -> list[Fault]:
        """Return what is wrong with an expression; one that stands for many jobs is read once."""
        needs = scope.needs if "needs" in text else None
        key = (text, condition, needs, scope.matrix if "matrix" in text else None)
        if key not in self.known:
            there = 1 if condition else text.count("${{")
            self.expressions += there * (1 + (len(self.inputs) + len(scope.needs)) // LARGE)
            if self.expressions > MOST_EXPRESSIONS:
                self.report.fail(path, f"a file has at most {MOST_EXPRESSIONS} expressions")
                self.report.done()
            find = partial(find_faults, condition=True) if condition else find_template_faults
            self.known[key] = find(text, scope)
        return self.known[key]

    def _scope(self, job: Job) -> Scope:
        needs = {name: self.jobs[name] for name in job.needs if name in self.jobs}
        matrix = job.matrix
        names = set() if matrix is None else set(matrix.axes)
        if matrix is not None:
            names |= {name for cell in matrix.include for name in cell}
        return Scope(
            self.inputs,
            frozenset(needs),
            {name: frozenset(other.outputs) for name, other in needs.items()},
            self.names,
            frozenset(names),
        )

    def _take(self, path: str, faults: Iterable[Fault]) -> None:
        """Note faults of a text, each at its own place in the file."""
        node = self.texts.get(path)
        for fault in faults:
            place = node.inside(fault.offset) if node is not None else None
            self.report.fail(path, fault.why, place)


def _texts(node: Node, path: str) -> Iterator[tuple[str, Scalar]]:
    """Yield every value of a file with the path that reports call it by."""
    look = [(node, path)]
    while look:
        node, path = look.pop()
        match node:
            case Scalar():
                yield path, node
            case Listing():
                look += ((item, f"{path}[{index}]") for index, item in enumerate(node.items))
            case MappingNode():
                for name, (_, value) in node.entries.items():
                    in_map = path.rpartition(".")[2] in _FREE or path in _FREE
                    inner = f"{path}[{name}]" if in_map else f"{path}.{name}" if path else name
                    look.append((value, inner))


_FREE = frozenset({"env", "with", "inputs", "labels", "secrets"})
"""Mappings whose keys are of the author's own choice."""
