"""A short chaos run on each database; `python -m tests.chaos` does long ones."""

import pytest

from tests.chaos.run import Options, run


@pytest.mark.xdist_group("chaos")  # one at a time
@pytest.mark.timeout(420)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_every_promise_holds_while_things_break(database):
    options = Options(
        seed=20,
        database=database,
        seconds=10.0,
        tasks=80,
        runs=1,
        agents=3,
        fault_every=0.7,
        crash_every=4.0,
        lease=8.0,
    )
    result = await run(options)
    assert not result.violations, "\n".join(map(str, result.violations))
    assert sum(result.faults.values()) >= 5
    assert result.figures["tasks"] >= options.tasks
