"""Routes of containers, except their byte streams."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.core import filters, views
from labfleet_api.core.adjustments import warnings
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.filters import Filters
from labfleet_api.core.stats import stats_json
from labfleet_api.service.fleet import Fleet, Watch
from labfleet_api.service.http import answer, flag, number, read_body
from labfleet_api.service.life import Life, StopWish
from labfleet_api.service.sizes import size_of, sizes_of
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import ConflictError, InvalidRequestError, LabfleetError
from labfleet_proto.images import familiar_repository
from labfleet_proto.runtime import RESIZE, STATS, TOP, ContainerRef, Resize, Top

_FILTERS = frozenset(
    {"id", "name", "label", "status", "ancestor", "network", "volume", "exited", "host"}
    | {"health", "before", "since"}
)
_WAITS = ("not-running", "next-exit", "removed")
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
        wanted = filters.parse_filters(request.query_params.get("filters", ""), _FILTERS)
        limit = number(request, "limit", 0)
        show_all = flag(request, "all") or limit > 0 or "status" in wanted or "exited" in wanted
        found = [
            record
            for record in fleet.records()
            if (show_all or views.state_of(record, fleet.seen(record)) == "running")
            and _matches(fleet, record, wanted)
        ]
        found = found[:limit] if limit > 0 else found
        rows = [row(record) for record in found]
        if flag(request, "size"):
            sizes = await sizes_of(fleet, found)
            rows = [each | size for each, size in zip(rows, sizes, strict=True)]
        return answer(rows)

    @routes.post("/containers/create")
    async def create(request: Request) -> Response:
        body = await read_body(request, CreateBody)
        platform = request.query_params.get("platform", "")
        record = await life.create(body, request.query_params.get("name", ""), platform)
        return answer({"Id": record.id, "Warnings": warnings(body)}, 201)

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
            raise InvalidRequestError("link: this fleet has no legacy links")
        await life.remove(
            fleet.find(text), force=flag(request, "force"), with_volumes=flag(request, "v")
        )
        return Response(status_code=204)

    @routes.post("/containers/{text}/wait")
    async def wait(text: str, request: Request) -> Response:
        record = fleet.find(text)
        condition = request.query_params.get("condition") or "not-running"
        if condition not in _WAITS:
            raise InvalidRequestError(f"invalid condition: {condition!r}")
        watching = fleet.watching(record)
        watch = watching.__enter__()  # before the head is sent: no exit is missed

        async def body() -> AsyncIterator[bytes]:
            try:
                end: views.Json = {"StatusCode": await life.wait(record, watch, condition)}
            except LabfleetError as exc:
                end = {"StatusCode": 125, "Error": {"Message": exc.message}}
            finally:
                watching.__exit__(None, None, None)
            yield json.dumps(end).encode() + b"\n"

        return StreamingResponse(body(), media_type="application/json")

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
            if flag(request, "one-shot"):
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
    if views.state_of(record, fleet.seen(record)) != "running":
        raise ConflictError(f"container {record.id} is not running")


def _matches(fleet: Fleet, record: ContainerRecord, wanted: Filters) -> bool:
    """Whether a container passes every filter; values of one filter are alternatives, but labels all hold."""
    seen = fleet.seen(record)
    spec = record.spec
    code = str(seen.exit_code) if seen is not None and seen.exit_code is not None else ""
    image = record.image
    repository = familiar_repository(image.repository)
    names = (image.reference, image.image_id, repository, f"{repository}:latest")
    state = views.state_of(record, seen)
    checks: dict[str, Callable[[str], bool]] = {
        "id": record.id.startswith,
        "name": lambda value: _name_matches(record.name, value),
        "status": lambda value: state == value,
        "ancestor": lambda value: (
            value in names or image.image_id.removeprefix("sha256:").startswith(value)
        ),
        "network": lambda value: any(
            value in (each.network_name, each.network_id) for each in spec.networks
        ),
        "volume": lambda value: any(value in (each.volume, each.target) for each in spec.mounts),
        "exited": lambda value: state == "exited" and code == value,
        "host": lambda value: record.assignment.host == value,
        "health": lambda value: value == "none",
    }
    for name, values in wanted.items():
        if name == "label":
            if not filters.labels_match(values, spec.labels):
                return False
        elif name in ("before", "since"):
            for value in values:
                other = fleet.find(value).created_at_ns
                if (record.created_at_ns < other) is not (name == "before"):
                    return False
                if record.created_at_ns == other:
                    return False
        elif not any(checks[name](value) for value in values):
            return False
    return True


def _name_matches(name: str, pattern: str) -> bool:
    """Docker takes a regular expression; one that is malformed is taken literally."""
    try:
        return re.search(pattern, name) is not None or re.search(pattern, f"/{name}") is not None
    except re.error:
        return pattern in name
