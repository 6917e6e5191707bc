import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "debian_programs.py"


@pytest.fixture
def run(tmp_path):
    """Return a function that runs the tool with only these programs on PATH, by their scripts."""
    folder = tmp_path / "into"
    programs = tmp_path / "programs"
    folder.mkdir()
    programs.mkdir()

    def run(**scripts):
        for name, script in scripts.items():
            program = programs / name.replace("_", "-")
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)
        done = subprocess.run(  # noqa: S603 - our own tool
            [sys.executable, SCRIPT, folder, "prometheus:promtool"],
            env={"PATH": str(programs)},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    return run


def test_one_that_is_there_is_left(run):
    assert run(promtool="exit 0").startswith("promtool is ")


def test_where_there_is_no_apt_the_reason_is_told(run):
    assert run() == (
        "There is no promtool, and tests that want it are skipped: "
        "no apt-get here; install promtool yourself.\n"
    )


def test_what_apt_says_is_told(run):
    said = run(apt_get="echo first >&2; echo no network >&2; exit 100", dpkg_deb="exit 0")
    assert said.endswith("update: no network.\n")


def test_it_is_taken_out_of_the_package(run, tmp_path):
    wanted = f"case $* in *download*) PATH={os.defpath}; touch prometheus_1_all.deb;; esac"
    unpack = f"PATH={os.defpath}; mkdir -p $3/usr/bin; echo tool > $3/usr/bin/promtool"
    assert run(apt_get=wanted, dpkg_deb=unpack) == f"promtool is {tmp_path}/into/promtool.\n"
    assert (tmp_path / "into" / "promtool").read_text() == "tool\n"
