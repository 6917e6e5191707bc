from server.engine.fleet import RESOURCES, STATES, Fleet
from server.engine.sessions import Session


def session(name, **fields):
    given = {"agent_key": 1, "agent_id": name, "session_id": name, "slots": 2, "labels": {}}
    return Session(**given, v1=False, **fields)


def measured(share, running=0):
    return {**dict.fromkeys(RESOURCES.values(), share), "running_tasks": running, "at": 1}


def test_agents_are_counted_by_how_they_stand():
    fleet = Fleet(
        [
            session("a"),
            session("b", leases={"x": 1}),
            session("c", leases={"x": 1, "y": 1}),
            session("d", open=False),
            session("e", lost=True, leases={"x": 1}),
            session("f"),
        ]
    )
    counted = {state: fleet.count(state) for state in STATES}
    assert counted == {"idle": 2, "online": 1, "busy": 1, "closed": 1, "lost": 1}
    assert fleet.held() == 4


def test_what_agents_measure_is_summed_up_over_those_that_are_heard():
    fleet = Fleet(
        [
            session("a", measured=measured(20.0, 1)),
            session("b", measured=measured(60.0, 2)),
            session("c", measured=measured(90.0, 4), lost=True),
            session("d"),
        ]
    )
    for resource in RESOURCES:
        assert (fleet.mean(resource), fleet.highest(resource)) == (0.4, 0.6)
    assert fleet.running() == 3


def test_without_agents_everything_is_zero():
    fleet = Fleet([])
    assert (fleet.mean("cpu"), fleet.highest("cpu"), fleet.running()) == (0, 0, 0)
