"""`muster hook` and `muster schedule`: what is asked, and what is shown."""

import pytest

from generated.hook.v1 import hook_pb2
from generated.pipeline.v1 import pipeline_pb2
from generated.schedule.v1 import schedule_pb2
from generated.secret.v1 import secret_pb2


@pytest.fixture
def plane(control_plane, a_pipeline):
    control_plane.answers["ListPipelines"] = pipeline_pb2.ListPipelinesResponse(
        pipelines=[a_pipeline]
    )
    return control_plane


def test_a_hook_gets_a_secret_of_its_own_shown_once(muster, plane):
    plane.answers["PutSecret"] = secret_pb2.PutSecretResponse()
    plane.answers["CreateHook"] = hook_pb2.CreateHookResponse(
        hook=hook_pb2.Hook(hook_id="h", path="/hooks/p")
    )
    done = muster("hook", "add", "nightly", "github")
    (put,) = plane.of(secret_pb2.PutSecretRequest)
    (made,) = plane.of(hook_pb2.CreateHookRequest)
    assert made.secret == put.name
    assert put.value in done.out
    assert "POST /hooks/p" in done.out


def test_a_header_belongs_to_hmac(muster, plane):
    assert muster("hook", "add", "nightly", "hmac").code == 2
    assert muster("hook", "add", "nightly", "github", "--header", "x").code == 2
    assert not plane.of(secret_pb2.PutSecretRequest)


def test_deliveries_say_why_nothing_has_started(muster, plane):
    plane.answers["ListDeliveries"] = hook_pb2.ListDeliveriesResponse(
        deliveries=[
            hook_pb2.Delivery(delivery_id="d", event="push", state=3, outcome="branch 'x' is none")
        ]
    )
    done = muster("hook", "deliveries")
    assert "IGNORED" in done.out
    assert "branch 'x' is none" in done.out


def test_a_schedule_is_what_its_options_say(muster, plane):
    plane.answers["CreateSchedule"] = schedule_pb2.CreateScheduleResponse(
        next_times=[1_900_000_000_000]
    )
    done = muster(
        *("schedule", "add", "n", "nightly", "0 3 * * *", "--zone", "Europe/Berlin"),
        *("--jitter", "5m", "--overlap", "queue", "--catch-up", "all", "--at-most", "3"),
        *("--window", "2h", "--input", "a=1", "--start", "2030-01-31"),
    )
    assert done.code == 0
    assert "2030-03-17" in done.out
    (request,) = plane.of(schedule_pb2.CreateScheduleRequest)
    plan = request.plan
    assert (plan.cron, plan.zone, plan.jitter) == ("0 3 * * *", "Europe/Berlin", 300)
    assert (plan.overlap, plan.catch_up) == (2, 3)
    assert (plan.catch_up_limit, plan.catch_up_window) == (3, 7200)
    assert plan.starts_at == 1_896_048_000_000
    assert dict(plan.inputs) == {"a": "1"}


def test_an_unknown_schedule_exits_4(muster, plane):
    plane.answers["ListSchedules"] = schedule_pb2.ListSchedulesResponse()
    done = muster("schedule", "get", "nothing")
    assert done.code == 4
    assert "no schedule is named 'nothing'" in done.err
