"""The access table says who may call every RPC and every route, and nothing else."""

import pytest

from generated.agent.v1 import agent_pb2
from generated.artifact.v1 import artifact_pb2
from generated.audit.v1 import audit_pb2
from generated.auth.v1 import auth_pb2
from generated.catalog.v1 import catalog_pb2
from generated.hook.v1 import hook_pb2
from generated.pipeline.v1 import pipeline_pb2
from generated.schedule.v1 import schedule_pb2
from generated.secret.v1 import secret_pb2
from generated.stream.v1 import stream_pb2
from generated.task.v1 import task_pb2
from server.access import ROUTES, RPCS
from server.app import SERVICES
from server.domain.access import ANYBODY, GRANTS, Permission, Role, may
from server.web.app import build
from server.web.artifacts import ArtifactDoor
from server.web.hooks import HookDoor
from server.web.uploads import UploadDoor

FILES = [
    *(
        agent_pb2,
        artifact_pb2,
        audit_pb2,
        auth_pb2,
        catalog_pb2,
        hook_pb2,
        pipeline_pb2,
        schedule_pb2,
        secret_pb2,
    ),
    *(stream_pb2, task_pb2),
]


def test_every_rpc_is_in_the_table_and_nothing_else():
    methods = {
        f"/{service.full_name}/{method.name}"
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {method.split("/")[1] for method in methods} == set(SERVICES)
    assert set(RPCS) == methods


def test_every_route_is_in_the_table_and_nothing_else():
    async def nothing():
        return None

    doors = HookDoor(None), ArtifactDoor(None), UploadDoor(None)
    routes = {
        f"{method} {route.path}"
        for route in build(nothing, nothing, *doors).routes
        for method in route.methods - {"HEAD"}
    }
    assert set(ROUTES) == routes


def test_roles_grow():
    viewer, operator, admin = (GRANTS[role] for role in Role)
    assert viewer < operator < admin
    assert admin.isdisjoint({Permission.SERVE, Permission.ENROL, Permission.ATTEND})


@pytest.mark.parametrize("held", [frozenset(), frozenset(Permission)])
def test_a_door_that_is_not_listed_is_closed(held):
    assert not may(held, None)
    assert may(held, ANYBODY)
