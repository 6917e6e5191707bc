import pytest

from server.domain.errors import MusterError, NotFound
from server.domain.ledger import Ledger
from server.domain.policy import Policy
from server.domain.task import Queue
from tests.fakes.memory_source import MemorySource, Tables
from tests.records import agent, event, new, pipeline, run, task


@pytest.fixture
def source():
    source = MemorySource(Tables())
    source.save(new(agents=[agent(1)], pipelines=[pipeline(1)], runs=[run(1)]))
    source.save(new(tasks=[task(1, run_key=1), task(2)], dependencies=[(2, 1)]))
    return source


@pytest.fixture
def ledger(source):
    return Ledger(source, 1000, Policy())


def test_a_row_is_one_object_however_it_is_asked_for(ledger):
    ledger.prefetch_tasks(["task-1"])
    one = ledger.task("default", "task-1")
    again = [
        ledger.find_task("task-1"),
        *ledger.tasks_by_key([1]),
        *ledger.tasks_of_run(ledger.run_by_key(1)),
        *(t for t in ledger.ready_tasks(Queue("any", "default"), 9) if t.key == 1),
    ]
    assert all(other is one for other in again)
    assert ledger.dependents(one) == ledger.tasks_by_key([2])
    assert ledger.agent("agent-1") is ledger.agents_by_key([1])[1]
    (active,) = ledger.active_runs(ledger.pipeline("default", "pipeline-1"))
    assert ledger.run("default", "run-1") is ledger.run_by_key(1) is active


def test_searches_see_what_was_touched_before(ledger):
    row = ledger.task("default", "task-1")
    row.lease_agent, row.claimed_at = 1, 1000
    ledger.touch(row)
    assert [t.key for t in ledger.ready_tasks(Queue("any", "default"), 9)] == [2]
    assert ledger.leases_of([1]) == {1: 1}


def test_what_was_not_touched_is_not_written(ledger, source):
    ledger.task("default", "task-1").name = "forgotten"
    ledger.finish()
    assert source.tasks_by_key([1])[0].name == "task 1"


def test_events_are_written_once_and_at_the_end(ledger, source):
    told = event()
    ledger.tell(told)
    ledger.flush()
    assert told.position == 0
    ledger.finish()
    assert told.position == 1
    ledger.finish()
    assert source.new_key()
    assert ledger.events == [told]


@pytest.mark.parametrize(
    "ask",
    [
        lambda ledger: ledger.task("default", "nobody"),
        lambda ledger: ledger.task("other", "task-1"),
        lambda ledger: ledger.agent("nobody"),
        lambda ledger: ledger.pipeline("other", "pipeline-1"),
        lambda ledger: ledger.run("other", "run-1"),
    ],
)
def test_what_is_not_there_is_not_found(ledger, ask):
    with pytest.raises(NotFound) as caught:
        ask(ledger)
    assert isinstance(caught.value, MusterError)


def test_agents_serve_every_namespace(ledger):
    assert ledger.task(None, "task-1").key == 1


def test_every_change_is_counted_as_an_edit(ledger):
    before = ledger.edits
    ledger.task("default", "task-1")
    assert ledger.edits == before
    ledger.touch(ledger.task("default", "task-1"))
    ledger.tell(event())
    assert ledger.edits == before + 2


def test_the_next_due_moment_is_the_earliest_of_all_touched(ledger):
    for key, claimed_at in ((1, 500), (2, 300)):
        (row,) = ledger.tasks_by_key([key])
        row.lease_agent, row.claimed_at = 1, claimed_at
        ledger.touch(row)
    ledger.finish()
    assert ledger.effects.next_due == 300 + Policy().claim_to_start
