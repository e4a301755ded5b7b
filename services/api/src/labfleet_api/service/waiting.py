"""`POST /containers/{id}/wait`: the exit code of a run, or of the last one when the container goes."""

import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.core import waits
from labfleet_api.core.views import Json
from labfleet_api.service.fleet import Fleet, Watch
from labfleet_proto.buckets import observed_key
from labfleet_proto.containers import ContainerRecord, State
from labfleet_proto.errors import InvalidRequestError, LabfleetError, UnavailableError


async def wait(fleet: Fleet, record: ContainerRecord, watch: Watch, condition: str) -> int:
    """Wait for `not-running`, `next-exit` or `removed`; return the exit code.

    Raises UnavailableError when the container is gone and nobody knows its exit code any more.
    """
    run = waits.awaited_run(record, watch.last, condition)
    if run is None:
        return (watch.last.exit_code or 0) if watch.last is not None else 0
    while not watch.is_gone:  # then its name is free again
        code = waits.exit_code(watch.last, run)
        if code is not None and condition != "removed":
            return code
        watch.moved.clear()
        await watch.moved.wait()
    last = watch.last
    if last is None or last.state < State.EXITED:
        # It ended while this view of the fleet was behind: the store keeps the end for a minute.
        key = observed_key(record.assignment.host, record.id)
        entry = await fleet.memory.observed.bucket.get(key)
        if entry is None:
            raise UnavailableError(f"container {record.id} is gone; how it ended was not heard")
        last = entry.value
    return last.exit_code or 0


def router(fleet: Fleet) -> APIRouter:
    """The route."""
    routes = APIRouter()

    @routes.post("/containers/{text}/wait")
    async def wait_for(text: str, request: Request) -> Response:
        record = fleet.find(text)
        condition = request.query_params.get("condition") or "not-running"
        if condition not in waits.CONDITIONS:
            raise InvalidRequestError(f'invalid condition: "{condition}"')
        watching = fleet.watching(record)
        watch = watching.__enter__()  # before the head is sent: no exit is missed

        async def body() -> AsyncIterator[bytes]:
            try:
                end: Json = {"StatusCode": await wait(fleet, record, watch, condition)}
            except LabfleetError as exc:
                end = {"StatusCode": 125, "Error": {"Message": exc.message}}
            finally:
                watching.__exit__(None, None, None)
            yield json.dumps(end).encode() + b"\n"

        return StreamingResponse(body(), media_type="application/json")

    return routes
