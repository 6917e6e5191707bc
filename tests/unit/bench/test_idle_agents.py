"""What a crowd of agents needs of the machine."""

import resource

import pytest

from bench.figures.idle_agents import allow_open_files
from bench.lab import Unmeasurable


@pytest.fixture
def limits():
    """Give the limits of open files, and set them back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_low_soft_limit_of_open_files_is_raised(limits):
    _, hard = limits
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
    allow_open_files(400)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (400, hard)


def test_a_high_soft_limit_stays(limits):
    allow_open_files(10)
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == limits


def test_a_machine_that_does_not_allow_so_many_files_is_told(limits):
    _, hard = limits
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this machine allows any number")
    with pytest.raises(Unmeasurable, match=f"{hard} open files"):
        allow_open_files(hard + 1)
