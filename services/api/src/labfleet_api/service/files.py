"""Routes of a container's files: cp, diff, export."""

import base64
import contextlib
import json

from fastapi import APIRouter, Request, Response

from labfleet_api.core.problems import BodyTooLargeError
from labfleet_api.core.status import state_of
from labfleet_api.core.times import rfc3339
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import flag
from labfleet_api.service.relays import carried, streamed
from labfleet_chassis.data_port import ByteStream
from labfleet_proto.errors import (
    ConflictError,
    InvalidRequestError,
    LabfleetError,
)
from labfleet_proto.problem import Problem
from labfleet_proto.runtime import (
    STAT_PATH,
    PathStat,
    StatPath,
)
from labfleet_proto.streams import (
    ExportFiles,
    ReadArchive,
    ReadChanges,
    WriteArchive,
)

_STAT_HEADER = "X-Docker-Container-Path-Stat"
_MOST_ARCHIVE = 64 << 30


def router(fleet: Fleet) -> APIRouter:
    """Routes of files."""
    routes = APIRouter()

    @routes.head("/containers/{text}/archive")
    async def stat_archive(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = StatPath(container=record.id, path=_path(request), shown_as=text)
        about = await fleet.ask(STAT_PATH, wish, record)
        return Response(status_code=200, headers={_STAT_HEADER: _encoded(about)})

    @routes.get("/containers/{text}/archive")
    async def get_archive(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = ReadArchive(container=record.id, path=_path(request), shown_as=text)
        async with contextlib.AsyncExitStack() as stack:
            host = await stack.enter_async_context(fleet.stream(record, wish))
            about = PathStat.model_validate(host.detail)
            return carried(
                host,
                stack.pop_all(),
                {"Content-Type": "application/x-tar", _STAT_HEADER: _encoded(about)},
            )

    @routes.put("/containers/{text}/archive")
    async def put_archive(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = WriteArchive(
            container=record.id,
            path=_path(request),
            refuse_dir_overwrite=flag(request, "noOverwriteDirNonDir"),
            keep_ownership=flag(request, "copyUIDGID"),
            shown_as=text,
        )
        async with fleet.stream(record, wish) as host:
            size = 0
            try:
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > _MOST_ARCHIVE:
                        raise BodyTooLargeError(f"the archive is larger than {_MOST_ARCHIVE} bytes")
                    await host.write(chunk)
                host.write_eof()
            except ConnectionError:
                size = -1  # the host ended the stream: its last line says why
            await _check_end(host)
        return Response(status_code=200)

    # -- diff, export

    @routes.get("/containers/{text}/changes")
    async def changes(text: str) -> Response:
        record = fleet.find(text)
        wish = ReadChanges(container=record.id)
        return await streamed(fleet, record, wish, {"Content-Type": "application/json"})

    @routes.get("/containers/{text}/export")
    async def export(text: str) -> Response:
        record = fleet.find(text)
        if state_of(record, fleet.seen(record)) == "removing":
            raise ConflictError(f"You cannot export container {record.id} which is being removed")
        wish = ExportFiles(container=record.id)
        return await streamed(fleet, record, wish, {"Content-Type": "application/octet-stream"})

    return routes


async def _check_end(host: ByteStream) -> None:
    """Read the host's last line of an upload. Raises what it says."""
    line = b""
    while b"\n" not in line and (data := await host.read()):
        line += data
    if not line:
        raise ConflictError("the host ended the upload without a word")
    end = json.loads(line)
    if end.get("error"):
        error: LabfleetError = Problem(code=end["code"], message=end["error"]).to_error()
        raise error


def _path(request: Request) -> str:
    path = request.query_params.get("path", "")
    if not path:
        raise InvalidRequestError("missing parameter in query: path")
    return path


def _encoded(about: PathStat) -> str:
    document = {
        "name": about.name,
        "size": about.size_bytes,
        "mode": about.mode,
        "mtime": rfc3339(about.mtime_ns),
        "linkTarget": about.link_target,
    }
    return base64.b64encode(json.dumps(document).encode()).decode()
