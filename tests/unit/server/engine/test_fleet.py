from server import metrics
from server.engine.fleet import CUSTOM_SHOWN, RESOURCES, STATES, STATS, Fleet
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


def test_of_what_agents_measure_themselves_the_commonest_numbers_are_shown():
    def own(**custom):
        return {**measured(0.0), "custom": custom}

    many = {f"rare_{n:03}": "1" for n in range(CUSTOM_SHOWN)}
    fleet = Fleet(
        [
            session("a", measured=own(zone_c="20", word="up", odd="nan")),
            session("b", measured=own(zone_c="22.5", **many)),
            session("c", measured=own(zone_c="99"), lost=True),
            session("d"),
        ]
    )
    fleet.look()
    text = metrics.text().decode()
    shown = [line for line in text.splitlines() if line.startswith("muster_agents_custom{")]
    assert len(shown) == CUSTOM_SHOWN * len(STATS)
    of = 'muster_agents_custom{measurement="zone_c",stat='
    assert {line.removeprefix(of) for line in shown if line.startswith(of)} == {
        '"mean"} 21.25',
        '"max"} 22.5',
        '"sum"} 42.5',
    }
    assert not any("word" in line or "odd" in line for line in shown)
    Fleet([]).look()
    assert "muster_agents_custom{" not in metrics.text().decode()


def test_numbers_too_large_to_add_up_are_shown_as_infinite():
    fleet = Fleet(
        [session(name, measured={**measured(0.0), "custom": {"huge": "1e308"}}) for name in "ab"]
    )
    fleet.look()
    assert 'muster_agents_custom{measurement="huge",stat="mean"} +Inf' in metrics.text().decode()


def test_without_agents_everything_is_zero():
    fleet = Fleet([])
    assert (fleet.mean("cpu"), fleet.highest("cpu"), fleet.running()) == (0, 0, 0)
