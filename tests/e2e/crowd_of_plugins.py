"""Many agents use one plugin of each home: each fetches it once, checks it, and keeps its own."""

import hashlib
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from generated.pipeline.v1 import pipeline_pb2
from generated.task.v1 import task_pb2
from tests.counting_proxy import CountingProxy, counting_proxy
from tests.docker_registry import docker_registry, program
from tests.e2e.kit import eventually
from tests.e2e.test_plugins import Plugged
from tests.seaweedfs import BUCKET, seaweedfs

pytestmark = pytest.mark.xdist_group("blobs")  # one S3 is enough

AGENTS = int(os.environ.get("PLUGIN_AGENTS", "5"))
"""So many fetch at once; `make plugin-crowd` takes 20."""

TASKS = 100
MANIFEST = """
id = "where"
version = "1.0.0"
type = "step"
protocol = "simple"
entry_points = {any = "main.sh"}
"""
PROGRAM = """#!/bin/sh
cd "$(dirname "$0")" && pwd
"""


@dataclass
class Home:
    """A home of plugins: how a server is told of it, and how its files are spoilt."""

    flags: tuple[str, ...]
    env: dict[str, str]
    tamper: object
    proxy: CountingProxy | None = None


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    if program() is None:
        pytest.skip("docker-registry is not in .venv/bin and not on PATH; `make programs` says why")
    with docker_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def in_folder(tmp_path):
    folder = tmp_path / "home"

    def tamper(sha256, data):
        (folder / f"{sha256}.tar.gz").write_bytes(data)

    return Home(("--plugin-home", str(folder)), {}, tamper)


@pytest.fixture
def in_s3(s3, tmp_path):
    with counting_proxy(urlsplit(s3.endpoint).port) as proxy:

        def tamper(sha256, data):
            client = s3.client()
            client.put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/{sha256}.tar.gz", Body=data)
            client.close()

        flags = ("--plugin-home", s3.place(tmp_path.name, proxy.endpoint))
        yield Home(flags, s3.env, tamper, proxy)


@pytest.fixture
def in_registry(registry, tmp_path):
    login = tmp_path / "login"
    login.write_text(f"{registry.user}:{registry.password}")

    def tamper(sha256, data):
        blobs = registry.folder / "docker/registry/v2/blobs/sha256"
        (blobs / sha256[:2] / sha256 / "data").write_bytes(data)

    name = re.sub("[^a-z0-9]+", "-", tmp_path.name.lower()).strip("-")
    place = f"oci://{registry.host}/team/{name}?insecure=1&login={login}"
    return Home(("--plugin-home", place), {}, tamper)


@pytest.fixture(params=["folder", "s3", "registry"])
def home(request):
    return request.getfixturevalue(f"in_{request.param}")


class Crowd(Plugged):
    """A server with plugins in a home, and one plugin that says where it lies."""

    def __init__(self, kit, home, folder):
        super().__init__(kit, *home.flags, env=home.env)
        self.home = home
        self.count = 0
        self.package = self._packed(folder)
        self.sha256 = hashlib.sha256(self.package.read_bytes()).hexdigest()
        self.muster("plugin", "publish", str(self.package))

    def _packed(self, folder):
        (folder / "where").mkdir()
        (folder / "where" / "plugin.toml").write_text(MANIFEST)
        (folder / "where" / "main.sh").write_text(PROGRAM)
        (folder / "where" / "main.sh").chmod(0o755)
        target = folder / "where.tar.gz"
        self.muster("plugin", "pack", str(folder / "where"), "--target", str(target))
        return target

    def submit(self, number, seats=("",)):
        """Start so many tasks a seat that use the plugin; return their ids, seat by seat."""
        jobs = [
            pipeline_pb2.Job(
                name=f"where-{seat}-{each}",
                steps=[pipeline_pb2.Step(name="where", uses="where")],
                label_selector=task_pb2.LabelSelector(match_labels={"seat": seat} if seat else {}),
            )
            for seat in seats
            for each in range(number)
        ]
        stage = pipeline_pb2.Stage(name="s", jobs=jobs, parallel=True)
        self.count += 1
        made = self.pipelines.CreatePipeline(
            pipeline_pb2.CreatePipelineRequest(name=f"p{self.count}", stages=[stage])
        )
        started = self.pipelines.TriggerPipeline(
            pipeline_pb2.TriggerPipelineRequest(pipeline_id=made.pipeline_id)
        )
        return [job.task_id for job in self.run(started.run_id).jobs]

    def task(self, task_id):
        return self.tasks.GetTask(task_pb2.GetTaskRequest(task_id=task_id)).task

    def succeeded(self, task_ids, within=120):
        def all_ended():
            return all(self.task(id_).status >= task_pb2.TASK_STATUS_SUCCESS for id_ in task_ids)

        eventually(all_ended, within, 0.2)
        ends = {self.task(id_).error_message: self.task(id_).status for id_ in task_ids}
        assert ends == {"": task_pb2.TASK_STATUS_SUCCESS}

    def said(self, task_id):
        request = task_pb2.GetTaskLogRequest(task_id=task_id)
        (line,) = (line.content for line in self.tasks.GetTaskLog(request).logs)
        return line

    def downloads(self):
        """Return how often agents have fetched the package, from the server or from the store."""
        _, text = self.kit.get(self.server, "/metrics")
        calls = re.findall(r'^muster_rpc_requests_total\{.*FetchPlugin".*\} (\S+)$', text, re.M)
        urls = []
        if self.home.proxy is not None:
            wanted = f"{self.sha256}.tar.gz?"  # signed, so it is an agent that asks
            urls = [asked for asked in self.home.proxy.asked
                    if asked.startswith("GET ") and wanted in asked]  # fmt: skip
        return sum(int(float(each)) for each in calls) + len(urls)


@pytest.fixture
def crowd(kit, home, tmp_path):
    return Crowd(kit, home, tmp_path)


def test_agents_that_start_a_plugin_at_once_fetch_it_once_each(crowd):
    seats = {str(seat): crowd.kit.start_agent(crowd.server, labels={"seat": str(seat)}, slots=4)
             for seat in range(AGENTS)}  # fmt: skip
    ids = crowd.submit(4, seats)
    crowd.succeeded(ids)
    told = {seat: ids[4 * place : 4 * place + 4] for place, seat in enumerate(seats)}
    assert crowd.downloads() == AGENTS
    places = {seat: {crowd.said(id_) for id_ in ids} for seat, ids in told.items()}
    own = {seat: agent.data_dir / "plugins" / crowd.sha256 for seat, agent in seats.items()}
    assert places == {seat: {str(folder)} for seat, folder in own.items()}
    assert not any(folder.is_symlink() or folder.stat().st_mode & 0o022 for folder in own.values())
    assert len({(folder / "main.sh").stat().st_ino for folder in own.values()}) == AGENTS


def test_other_bytes_than_were_published_never_run(crowd):
    crowd.home.tamper(crowd.sha256, b"x" * crowd.package.stat().st_size)
    (task_id,) = crowd.submit(1)
    if crowd.home.proxy is not None:  # the agent itself sees it
        eventually(lambda: crowd.task(task_id).status == task_pb2.TASK_STATUS_FAILED, 60)
        assert "plugin where" in crowd.task(task_id).error_message
    else:
        eventually(lambda: "other bytes" in crowd.muster("task", "explain", task_id), 60)
    kept = list((crowd.agent.data_dir / "plugins").iterdir())
    assert kept == []
    crowd.home.tamper(crowd.sha256, crowd.package.read_bytes())
    crowd.succeeded(crowd.submit(1))


def test_a_hundred_tasks_ask_nobody_for_a_plugin_that_is_here(kit, in_s3, tmp_path):
    crowd = Crowd(kit, in_s3, tmp_path)
    crowd.succeeded(crowd.submit(1))
    in_s3.proxy.shut()
    asked = list(in_s3.proxy.asked)
    crowd.succeeded(crowd.submit(TASKS))
    assert in_s3.proxy.asked == asked
    assert crowd.downloads() == 1
    in_s3.proxy.reopen()
