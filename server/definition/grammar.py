"""The keys of a pipeline file, in one table: files are read, and the JSON Schema made, by it."""

from server.definition import record
from server.definition.shape import (
    Anything,
    Choice,
    Duration,
    Field,
    Flag,
    ListOf,
    MapOf,
    Record,
    Shorthand,
    Text,
    Whole,
    keys_of_list,
    one_key,
)
from server.definition.shape_matrix import MatrixShape
from server.domain.checks import NAME_LIMIT
from server.domain.group import KEY_LIMIT, PLACES_LIMIT
from server.domain.pipeline import RETRY_LIMIT, TIMEOUT_LIMIT
from server.domain.priority import PRIORITY_HIGHEST

YEAR = 366 * 86_400
INPUT_TYPES = ("string", "integer", "number", "boolean", "choice")
ACTIONS = ("opened", "updated", "closed")
CATCH_UP = ("none", "last", "all")
OVERLAP = ("skip", "queue", "cancel_running", "allow")
END_STATUSES = ("success", "partial", "failed", "cancelled")
LONGEST_CONDITION = 1024
"""Characters of a condition."""

IDENTIFIER = Text(
    pattern=r"[A-Za-z_][A-Za-z0-9_]{0,63}",
    wanted="a name of letters, digits and _, not starting with a digit",
)
PLUGIN = Text(
    pattern=(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
        r"(@(sha256:[0-9a-f]{64}|[0-9]{1,9}(\.[0-9]{1,9}){0,2}([-+][0-9A-Za-z.+-]{1,60})?))?"
    ),
    wanted="a plugin such as git-checkout, git-checkout@1 or git-checkout@1.2.0",
)
WORDS = ListOf(Text(), alone=True)
GLOBS = ListOf(Text(at_most=256), most=100, alone=True)
VALUES = MapOf(Text(loose=True))
SECONDS = Duration(0, TIMEOUT_LIMIT)
CONDITION = Text(loose=True, at_most=LONGEST_CONDITION)
COMMANDS = ListOf(Text(), least=1, alone=True)

_IF = Field(
    CONDITION,
    "A condition in CEL; without it what came before has to succeed.",
    attribute="condition",
)
_FILTER = Field(
    CONDITION, "A condition in CEL on the event; others start nothing.", attribute="condition"
)
_BRANCHES = Field(GLOBS, "Globs, ! in front takes out; others start nothing. `**` also crosses /.")
_PATHS = Field(GLOBS, "Globs of changed files; a change of none of them starts nothing.")

PUSH = Record(
    record.Push,
    "A branch moved.",
    {"branches": _BRANCHES, "paths": _PATHS, "if": _FILTER},
    empty=True,
)
TAG = Record(
    record.Tag,
    "A tag was made.",
    {"tags": Field(GLOBS, "Globs of tags."), "if": _FILTER},
    empty=True,
)
PULL_REQUEST = Record(
    record.PullRequest,
    "A pull request was opened, updated or closed.",
    {
        "actions": Field(ListOf(Choice(ACTIONS), least=1, alone=True), "Default: opened, updated."),
        "branches": Field(GLOBS, "Globs of the branch it is to go into."),
        "paths": _PATHS,
        "if": _FILTER,
    },
    empty=True,
)
CRON = Record(
    record.Cron,
    "The clock strikes.",
    {
        "schedule": Field(
            Text(at_most=256), "Five cron fields, six with seconds in front, or @daily.", True
        ),
        "zone": Field(Text(at_most=64), "IANA time zone (default: UTC)."),
        "jitter": Field(Duration(0, 86_400), "Up to how much later, evenly spread."),
        "start": Field(Text(at_most=64), "Not before this date, or date and time, in the zone."),
        "end": Field(Text(at_most=64), "Not after this date, or date and time, in the zone."),
        "catch_up": Field(Choice(CATCH_UP), "Which missed times are made up for (default: last)."),
        "catch_up_window": Field(
            Duration(0, YEAR), "How late a missed time still counts (default: 1d)."
        ),
        "catch_up_limit": Field(Whole(1, 1000), "How many are made up for at most (default: 10)."),
        "overlap": Field(Choice(OVERLAP), "When the last run has not ended (default: skip)."),
        "branch": Field(Text(), "Branch to work on (default: the pipeline's)."),
        "inputs": Field(MapOf(Anything(), IDENTIFIER), "Values of inputs."),
    },
)
WEBHOOK = Record(record.Webhook, "A signed call came in.", {"if": _FILTER}, empty=True)
MANUAL = Record(record.Manual, "People and programs may start it.", {}, empty=True)
AFTER = Record(
    record.AfterPipeline,
    "Another pipeline's run ended.",
    {
        "name": Field(Text(), "The other pipeline.", True),
        "statuses": Field(ListOf(Choice(END_STATUSES), least=1, alone=True), "Default: success."),
        "branches": _BRANCHES,
    },
)
TRIGGERS = Record(
    record.Triggers,
    "What starts runs.",
    {
        "push": Field(PUSH, "A branch moved."),
        "tag": Field(TAG, "A tag was made."),
        "pull_request": Field(PULL_REQUEST, "A pull request was opened, updated or closed."),
        "cron": Field(
            ListOf(Shorthand(CRON, Text(), one_key("schedule")), least=1, most=100, alone=True),
            "Times at which it starts.",
        ),
        "webhook": Field(WEBHOOK, "A signed call from something that is no forge."),
        "manual": Field(MANUAL, "People and programs may start it."),
        "pipeline": Field(
            ListOf(Shorthand(AFTER, Text(), one_key("name")), least=1, most=100, alone=True),
            "Ends of other pipelines' runs.",
        ),
    },
)
TRIGGER_NAMES = ListOf(Choice(("push", "tag", "pull_request", "webhook", "manual")), alone=True)

INPUT = Record(
    record.Input,
    "A value that whoever starts a run may give.",
    {
        "type": Field(Choice(INPUT_TYPES), "Default: string."),
        "description": Field(Text(at_most=1024), "What it is for."),
        "default": Field(Anything(), "What it is when nobody says."),
        "required": Field(Flag(), "Whether somebody has to say."),
        "options": Field(ListOf(Text(loose=True), least=1, most=100), "What a choice may be."),
    },
    empty=True,
)
CONCURRENCY = Shorthand(
    Record(
        record.Concurrency,
        "A group of which only so many run at once.",
        {
            "group": Field(Text(at_most=KEY_LIMIT), "The group's name.", True),
            "limit": Field(Whole(1, PLACES_LIMIT), "How many (default: 1)."),
            "cancel_running": Field(Flag(), "Whether the newest cancels the others."),
        },
    ),
    Text(),
    one_key("group"),
)
ARTIFACTS = Shorthand(
    Record(
        record.Artifacts,
        "Files that are kept after the job.",
        {
            "files": Field(ListOf(Text(), least=1, alone=True), "Globs in the workspace.", True),
            "name": Field(Text(at_most=NAME_LIMIT), "What they are kept as."),
            "keep": Field(Duration(3600, 10 * YEAR), "How long."),
            "on_failure": Field(Flag(), "Whether also when the job fails."),
            "archive": Field(Flag(), "Whether as one file, NAME.tar.gz."),
            "dot_files": Field(
                Flag(), "Whether also what is called .NAME, and what lies in it (default: true)."
            ),
        },
    ),
    WORDS,
    one_key("files"),
)
TAKE = Shorthand(
    Record(
        record.Take,
        "Files of an earlier job that lie in the workspace before the job starts.",
        {
            "job": Field(Text(), "The job that left them.", True),
            "name": Field(Text(at_most=NAME_LIMIT), "Only the artifact of this name."),
            "into": Field(Text(at_most=1024), "The folder they are put into."),
        },
    ),
    Text(),
    one_key("job"),
)
APPROVAL = Shorthand(
    Record(
        record.Approval,
        "Somebody has to say yes before what follows.",
        {
            "who": Field(ListOf(Text(), least=1, alone=True), "Users and roles that may.", True),
            "timeout": Field(Duration(1, YEAR), "How long it waits; then it has failed."),
            "message": Field(Text(at_most=1024), "What they are asked."),
        },
    ),
    WORDS,
    one_key("who"),
)
STEP = Record(
    record.Step,
    "One part of a job: commands, or a plugin.",
    {
        "name": Field(Text(at_most=NAME_LIMIT), "What people call it."),
        "commands": Field(COMMANDS, "Lines of the job's script."),
        "uses": Field(PLUGIN, "A plugin: id, id@version or id@sha256:…."),
        "with": Field(MapOf(Anything()), "The plugin's settings.", attribute="settings"),
    },
)
_WHERE = {
    "image": Field(Text(loose=True, at_most=1024), "Container image to run in."),
    "labels": Field(VALUES, "Labels an agent must have."),
    "selector": Field(
        Text(at_most=4096), "What an agent's labels must satisfy: `zone in (a,b), !spot, cpus>3`."
    ),
    "timeout": Field(SECONDS, "How long it may run (default: 1h)."),
    "retry": Field(Whole(0, RETRY_LIMIT), "Further tries after a failure."),
    "priority": Field(Whole(0, PRIORITY_HIGHEST), "How urgent, 9 is first (default: 5)."),
}
DEFAULTS = Record(record.Defaults, "What jobs take that do not say it themselves.", _WHERE)
JOB = Record(
    record.Job,
    "One job; a run makes a task of it.",
    {
        "name": Field(Text(), "What people call it; unique in the file.", True),
        "if": _IF,
        **_WHERE,
        "env": Field(VALUES, "Environment variables, over the pipeline's."),
        "secrets": Field(
            Shorthand(MapOf(Text()), WORDS, keys_of_list(same=True)),
            "Variables that get kept secrets, by the secret's name.",
        ),
        "commands": Field(COMMANDS, "The lines of one script."),
        "steps": Field(ListOf(STEP, least=1, most=100), "Commands and plugins in order."),
        "approval": Field(APPROVAL, "Makes it a question to people."),
        "matrix": Field(MatrixShape(), "Makes it one job for each combination of values."),
        "needs": Field(WORDS, "Jobs of this stage or an earlier one that come first."),
        "allow_failure": Field(Flag(), "Whether the run goes on without it."),
        "artifacts": Field(ARTIFACTS, "Files to keep."),
        "take": Field(ListOf(TAKE, most=100, alone=True), "Files of earlier jobs to start with."),
        "checkout": Field(Flag(), "Whether the repository is checked out first (default: true)."),
        "keep_workspace": Field(Flag(), "Whether the agent keeps its workspace after the end."),
        "concurrency": Field(CONCURRENCY, "The group it takes a place in."),
        "outputs": Field(
            ListOf(IDENTIFIER, most=100, alone=True), "Values that it tells later jobs."
        ),
    },
)
STAGE = Record(
    record.Stage,
    "Jobs that start together or one after another; it starts when the one before has ended well.",
    {
        "name": Field(Text(), "What people call it; unique in the file.", True),
        "parallel": Field(Flag(), "Whether its jobs run side by side."),
        "if": Field(CONDITION, "A condition of all its jobs.", attribute="condition"),
        "jobs": Field(ListOf(JOB, least=1), "Its jobs.", True),
    },
)
PIPELINE = Record(
    record.PipelineFile,
    "A pipeline of Muster.",
    {
        "name": Field(Text(), "What people call it; unique in the namespace.", True),
        "description": Field(Text(at_most=10_000), "A sentence or more about it."),
        "repo_url": Field(Text(at_most=2048), "Repository to work on."),
        "branch": Field(Text(at_most=256), "Branch to work on (default: main)."),
        "on": Field(
            Shorthand(TRIGGERS, TRIGGER_NAMES, keys_of_list(same=False)),
            "What starts runs (default: manual).",
            attribute="triggers",
        ),
        "inputs": Field(MapOf(INPUT, IDENTIFIER), "Values that whoever starts a run may give."),
        "env": Field(VALUES, "Environment variables of every job."),
        "defaults": Field(DEFAULTS, "What jobs take that do not say it themselves."),
        "concurrency": Field(CONCURRENCY, "The group that each run takes a place in."),
        "stages": Field(ListOf(STAGE, least=1), "Its stages in order.", True),
    },
)
