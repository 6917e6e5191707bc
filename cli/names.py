"""Names in place of ids."""

import re

from cli.connection import Api
from cli.exit_codes import Exit
from cli.failure import CommandFailed
from generated.pipeline.v1 import pipeline_pb2

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


async def pipeline_id(api: Api, reference: str) -> str:
    """Return the id of a pipeline named by its id or its name.

    Raises:
        CommandFailed: when no pipeline has the name.
    """
    if UUID.fullmatch(reference):
        return reference
    request = pipeline_pb2.ListPipelinesRequest(name=reference, page_size=1)
    found = (await api.call(api.pipelines.ListPipelines, request)).pipelines
    if not found:
        raise CommandFailed(
            f"no pipeline is named {reference!r} — see what there is with: muster pipeline list",
            Exit.NOT_FOUND,
        )
    return found[0].pipeline_id
