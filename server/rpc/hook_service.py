"""hook.v1.HookService."""

from uuid_utils import uuid7

from generated.hook.v1 import hook_pb2, hook_pb2_grpc
from server.auth import current_caller
from server.domain.delivering import CreateHook, DeleteHook, Redeliver, RotateHook
from server.domain.errors import Invalid, NotFound, Violation
from server.domain.hook import Delivery, Hook, HookKind
from server.engine.deliveries import Deliveries
from server.engine.writer import Writer
from server.rpc import convert
from server.rpc.context import Context
from server.rpc.convert import enum
from server.stores.interfaces import Reader

SHOWN_BODY = 1024 * 1024
_KINDS = tuple(HookKind)


class HookService(hook_pb2_grpc.HookServiceServicer):
    """Hooks and deliveries."""

    def __init__(self, writer: Writer, reader: Reader, deliveries: Deliveries) -> None:
        self._writer = writer
        self._reader = reader
        self._deliveries = deliveries

    async def CreateHook(
        self, request: hook_pb2.CreateHookRequest, context: Context
    ) -> hook_pb2.CreateHookResponse:
        """See the proto."""
        caller = current_caller()
        if request.kind not in hook_pb2.HookKind.values() or not request.kind:
            raise Invalid([Violation("kind", "must be the kind of whoever calls")])
        command = CreateHook(
            caller.namespace,
            str(uuid7()),
            request.pipeline_id,
            _KINDS[request.kind - 1],
            request.secret,
            request.header,
            caller.name,
        )
        command.check()
        hook_id = await self._writer.submit(command, new_work=True)
        hooks = await self._reader.hooks(caller.namespace, request.pipeline_id)
        hook = next((each for each in hooks if each.public_id == hook_id), None)
        if hook is None:
            raise NotFound("hook", hook_id)
        return hook_pb2.CreateHookResponse(hook=_hook(hook))

    async def ListHooks(
        self, request: hook_pb2.ListHooksRequest, context: Context
    ) -> hook_pb2.ListHooksResponse:
        """See the proto."""
        hooks = await self._reader.hooks(current_caller().namespace, request.pipeline_id)
        return hook_pb2.ListHooksResponse(hooks=map(_hook, hooks))

    async def RotateHook(
        self, request: hook_pb2.RotateHookRequest, context: Context
    ) -> hook_pb2.RotateHookResponse:
        """See the proto."""
        command = RotateHook(
            current_caller().namespace,
            request.hook_id,
            request.secret,
            keep=not request.forget_previous,
        )
        command.check()
        await self._writer.submit(command)
        return hook_pb2.RotateHookResponse()

    async def DeleteHook(
        self, request: hook_pb2.DeleteHookRequest, context: Context
    ) -> hook_pb2.DeleteHookResponse:
        """See the proto."""
        await self._writer.submit(DeleteHook(current_caller().namespace, request.hook_id))
        return hook_pb2.DeleteHookResponse()

    async def ListDeliveries(
        self, request: hook_pb2.ListDeliveriesRequest, context: Context
    ) -> hook_pb2.ListDeliveriesResponse:
        """See the proto."""
        page = convert.page_of(0, request.page_size, request.page_token, "", (), descending=False)
        found = await self._reader.deliveries(
            current_caller().namespace, request.pipeline_id, page.after or 0, page.size
        )
        more = str(found[-1].key) if len(found) == page.size else ""
        return hook_pb2.ListDeliveriesResponse(
            deliveries=map(_delivery, found), next_page_token=more
        )

    async def GetDelivery(
        self, request: hook_pb2.GetDeliveryRequest, context: Context
    ) -> hook_pb2.GetDeliveryResponse:
        """See the proto."""
        namespace = current_caller().namespace
        delivery = await self._reader.delivery(namespace, request.delivery_id)
        body = await self._deliveries.body(delivery)
        return hook_pb2.GetDeliveryResponse(delivery=_delivery(delivery), body=body[:SHOWN_BODY])

    async def Redeliver(
        self, request: hook_pb2.RedeliverRequest, context: Context
    ) -> hook_pb2.RedeliverResponse:
        """See the proto."""
        command = Redeliver(current_caller().namespace, request.delivery_id, str(uuid7()))
        delivery_id = await self._writer.submit(command, new_work=True)
        return hook_pb2.RedeliverResponse(delivery_id=delivery_id)


def _hook(hook: Hook) -> hook_pb2.Hook:
    return hook_pb2.Hook(
        hook_id=hook.public_id,
        pipeline_id=hook.pipeline_id,
        kind=enum(_KINDS.index(hook.kind) + 1),
        secret=hook.secret,
        previous_secret=hook.previous_secret,
        header=hook.header,
        created_at=hook.created_at,
        created_by=hook.created_by,
        path=f"/hooks/{hook.pipeline_id}",
    )


def _delivery(delivery: Delivery) -> hook_pb2.Delivery:
    return hook_pb2.Delivery(
        delivery_id=delivery.public_id,
        pipeline_id=delivery.pipeline_id,
        forge_id=delivery.forge_id,
        event=delivery.event,
        received_at=delivery.received_at,
        size=delivery.size,
        state=enum(delivery.state),
        outcome=delivery.outcome,
        run_ids=delivery.run_ids,
        redelivers=delivery.redelivers or "",
    )
