"""Routes of containers, except their byte streams."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.core import filters, matching, status, views
from labfleet_api.core.adjustments import warnings
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.links import names_by_link
from labfleet_api.core.older_clients import as_asked_then
from labfleet_api.core.stats import stats_json
from labfleet_api.service.fleet import Fleet, Watch
from labfleet_api.service.http import answer, flag, number, read_body, version_of
from labfleet_api.service.life import Life, StopWish
from labfleet_api.service.sizes import size_of, sizes_of
from labfleet_chassis.caller import caller_is_admin
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import ConflictError, LabfleetError
from labfleet_proto.runtime import RESIZE, STATS, TOP, ContainerRef, Resize, Top

_STATS_EVERY_S = 1.0


def router(fleet: Fleet, life: Life) -> APIRouter:  # noqa: C901, PLR0915 - a table of routes
    """Routes below `/containers`."""
    routes = APIRouter()

    def row(record: ContainerRecord) -> views.Json:
        return views.row(
            record,
            fleet.seen(record),
            fleet.clock.now_ns(),
            is_host_lost=fleet.is_lost(record.assignment.host),
        )

    @routes.get("/containers/json")
    async def ps(request: Request) -> Response:
        wanted = filters.parse_filters(request.query_params.get("filters", ""), matching.KNOWN)
        matching.check(wanted)
        limit = number(request, "limit", 0)
        show_all = flag(request, "all") or limit > 0 or "status" in wanted

        times = {
            other: fleet.find(other).created_at_ns
            for other in (*wanted.get("before", ()), *wanted.get("since", ()))
        }
        found = []
        for record in fleet.records():
            seen = fleet.seen(record)
            is_shown = show_all or status.is_live(status.state_of(record, seen))
            if is_shown and matching.matches(record, seen, wanted, times):
                found.append(record)
        found = found[:limit] if limit > 0 else found
        linked = names_by_link(fleet.records())
        rows = [row(record) for record in found]
        for record, shown in zip(found, rows, strict=True):
            shown["Names"] += linked.get(record.name, []) + linked.get(record.id[:12], [])
        if flag(request, "size"):
            sizes = await sizes_of(fleet, found)
            rows = [each | size for each, size in zip(rows, sizes, strict=True)]
        return answer(rows)

    @routes.post("/containers/create")
    async def create(request: Request) -> Response:
        body = as_asked_then(await read_body(request, CreateBody), version_of(request))
        platform = request.query_params.get("platform", "")
        record = await life.create(body, request.query_params.get("name", ""), platform)
        said = warnings(body, is_operator=caller_is_admin())
        return answer({"Id": record.id, "Warnings": said}, 201)

    @routes.get("/containers/{text}/json")
    async def inspect(text: str, request: Request) -> Response:
        record = fleet.find(text)
        host = fleet.memory.hosts.get(record.assignment.host)
        document = views.inspect(record, fleet.seen(record), host)
        if flag(request, "size"):
            document |= await size_of(fleet, record)
        return answer(document)

    @routes.post("/containers/{text}/start")
    async def start(text: str) -> Response:
        await life.start(fleet.find(text))
        return Response(status_code=204)

    @routes.post("/containers/{text}/stop")
    async def stop(text: str, request: Request) -> Response:
        await life.stop(fleet.find(text), _stop_wish(request))
        return Response(status_code=204)

    @routes.post("/containers/{text}/restart")
    async def restart(text: str, request: Request) -> Response:
        await life.restart(fleet.find(text), _stop_wish(request))
        return Response(status_code=204)

    @routes.post("/containers/{text}/kill")
    async def kill(text: str, request: Request) -> Response:
        await life.kill(fleet.find(text), request.query_params.get("signal") or "SIGKILL")
        return Response(status_code=204)

    @routes.delete("/containers/{text}")
    async def remove(text: str, request: Request) -> Response:
        if flag(request, "link"):
            raise ConflictError("conflict: cannot remove the default link name of the container")
        await life.remove(
            fleet.find(text), force=flag(request, "force"), with_volumes=flag(request, "v")
        )
        return Response(status_code=204)

    @routes.post("/containers/{text}/resize")
    async def resize(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = Resize(
            container=record.id,
            exec=None,
            height=number(request, "h", 0),
            width=number(request, "w", 0),
        )
        await fleet.ask(RESIZE, wish, record)
        return Response(status_code=200)

    @routes.get("/containers/{text}/top")
    async def top(text: str, request: Request) -> Response:
        record = fleet.find(text)
        _require_running(fleet, record)
        words = request.query_params.get("ps_args") or "-ef"
        table = await fleet.ask(TOP, Top(container=record.id, ps_args=words), record)
        return answer({"Titles": table.titles, "Processes": table.processes})

    @routes.get("/containers/{text}/stats")
    async def stats(text: str, request: Request) -> Response:
        record = fleet.find(text)
        reference = ContainerRef(container=record.id)
        first = await fleet.ask(STATS, reference, record)
        if not flag(request, "stream", default=True):
            if flag(request, "one-shot") or first.read_at_ns == 0:  # it does not run
                return answer(stats_json(record, first, None))
            await asyncio.sleep(_STATS_EVERY_S)
            second = await fleet.ask(STATS, reference, record)
            return answer(stats_json(record, second, first))

        async def samples() -> AsyncIterator[bytes]:
            before, now = None, first
            with fleet.watching(record) as watch:
                while not watch.is_gone:
                    yield json.dumps(stats_json(record, now, before)).encode() + b"\n"
                    await _pause(watch)
                    try:
                        before, now = now, await fleet.ask(STATS, reference, record)
                    except LabfleetError:
                        return

        return StreamingResponse(samples(), media_type="application/json")

    return routes


async def _pause(watch: Watch) -> None:
    """Wait for the next sample's time; the container's end ends the wait."""
    try:
        async with asyncio.timeout(_STATS_EVERY_S):
            while not watch.is_gone:
                watch.moved.clear()
                await watch.moved.wait()
    except TimeoutError:
        return


def _stop_wish(request: Request) -> StopWish:
    timeout = request.query_params.get("t")
    return StopWish(
        signal=request.query_params.get("signal") or None,
        timeout_s=number(request, "t", 0) if timeout else None,
    )


def _require_running(fleet: Fleet, record: ContainerRecord) -> None:
    state = status.state_of(record, fleet.seen(record))
    if state == "restarting":
        raise ConflictError(
            f"Container {record.id} is restarting, wait until the container is running"
        )
    if not status.is_live(state):
        raise ConflictError(f"container {record.id} is not running")
