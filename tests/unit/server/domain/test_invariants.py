"""The six invariants of the core, under random interleavings (see machine.py).

HYPOTHESIS_PROFILE=long walks farther and longer than every test run can afford.
"""

import os

from hypothesis import HealthCheck, settings

from tests.unit.server.domain.machine import World

CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
PROFILES = {
    "ci": settings(max_examples=60, stateful_step_count=60, suppress_health_check=CHECKS),
    "long": settings(max_examples=2000, stateful_step_count=250, suppress_health_check=CHECKS),
}

TestInvariants = World.TestCase
TestInvariants.settings = PROFILES[os.environ.get("HYPOTHESIS_PROFILE", "ci")]
