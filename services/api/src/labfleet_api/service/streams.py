"""Routes whose answer is a byte stream: attach, exec, logs, cp."""

import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.adapters.hijack import splice, take_over
from labfleet_api.core.bodies import ExecBody, ExecStartBody
from labfleet_api.core.problems import BodyTooLargeError
from labfleet_api.core.times import parse_time, rfc3339
from labfleet_api.core.views import state_of
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import Taken, answer, flag, number, read_body
from labfleet_chassis.data_port import ByteStream
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import (
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    LabfleetError,
    NotFoundError,
    Problem,
)
from labfleet_proto.ids import ExecId
from labfleet_proto.runtime import (
    CREATE_EXEC,
    INSPECT_EXEC,
    RESIZE,
    START_EXEC,
    STAT_PATH,
    AttachContainer,
    AttachExec,
    CreateExec,
    ExecRef,
    PathStat,
    ReadArchive,
    ReadLogs,
    Resize,
    StatPath,
    StreamRequest,
    WriteArchive,
)

_MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
_RAW = "application/vnd.docker.raw-stream"
_STAT_HEADER = "X-Docker-Container-Path-Stat"
_MOST_ARCHIVE = 64 << 30


def router(fleet: Fleet) -> APIRouter:  # noqa: C901, PLR0915 - a table of routes
    """Routes of streams."""
    routes = APIRouter()

    @routes.post("/containers/{text}/attach")
    async def attach(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = AttachContainer(
            container=record.id,
            with_stdin=flag(request, "stdin") and record.spec.open_stdin,
            with_stdout=flag(request, "stdout"),
            with_stderr=flag(request, "stderr"),
            with_logs=flag(request, "logs"),
            is_live=flag(request, "stream"),
            detach_keys=request.query_params.get("detachKeys", ""),
        )
        return await _hijacked(request, record, wish, is_tty=record.spec.is_tty)

    async def _hijacked(
        request: Request, record: ContainerRecord, wish: StreamRequest, *, is_tty: bool
    ) -> Response:
        async with fleet.stream(record, wish) as host:
            client = await take_over(request, multiplexed=not is_tty)
            await splice(client, host)
        return Taken()

    @routes.get("/containers/{text}/logs")
    async def logs(text: str, request: Request) -> Response:
        record = fleet.find(text)
        asked = request.query_params
        if not (flag(request, "stdout") or flag(request, "stderr")):
            raise InvalidRequestError("Bad parameters: you must choose at least one stream")
        wish = ReadLogs(
            container=record.id,
            with_stdout=flag(request, "stdout"),
            with_stderr=flag(request, "stderr"),
            follow=flag(request, "follow"),
            since_ns=parse_time(asked.get("since", ""), "since"),
            until_ns=parse_time(asked.get("until", ""), "until"),
            tail=_tail(asked.get("tail", "all")),
            with_timestamps=flag(request, "timestamps"),
        )
        kind = _RAW if record.spec.is_tty else _MULTIPLEXED
        return await _streamed(fleet, record, wish, kind)

    # -- exec

    def owner(exec_id: str) -> ContainerRecord:
        for record in fleet.records():
            if len(exec_id) == 64 and record.id[:32] == exec_id[:32]:
                return record
        raise NotFoundError(f"No such exec instance: {exec_id}")

    @routes.post("/containers/{text}/exec")
    async def create_exec(text: str, request: Request) -> Response:
        record = fleet.find(text)
        body = await read_body(request, ExecBody)
        body.refuse_unserved()
        if body.Privileged:
            raise ForbiddenError("Privileged: privileged execs are not allowed")
        if not body.Cmd:
            raise InvalidRequestError("No exec command specified")
        if state_of(record, fleet.seen(record)) != "running":
            raise ConflictError(f"container {record.id} is not running")
        exec_id = ExecId(record.id[:32] + secrets.token_hex(16))
        wish = CreateExec(
            exec=exec_id,
            container=record.id,
            argv=tuple(body.Cmd),
            env=tuple(body.Env or ()),
            working_dir=body.WorkingDir,
            user=body.User,
            is_tty=body.Tty,
            attach_stdin=body.AttachStdin,
            attach_stdout=body.AttachStdout,
            attach_stderr=body.AttachStderr,
            detach_keys=body.DetachKeys,
        )
        await fleet.ask(CREATE_EXEC, wish, record)
        attributes = {"name": record.name, "image": record.image.reference, "execID": exec_id}
        await fleet.emit("container", f"exec_create: {' '.join(body.Cmd)}", record.id, attributes)
        return answer({"Id": exec_id}, 201)

    @routes.post("/exec/{exec_id}/start")
    async def start_exec(exec_id: str, request: Request) -> Response:
        body = await read_body(request, ExecStartBody)
        record = owner(exec_id)
        reference = ExecRef(container=record.id, exec=ExecId(exec_id))
        if body.Detach:
            await fleet.ask(START_EXEC, reference, record)
            return Response(status_code=200)
        size = body.ConsoleSize or [0, 0]
        wish = AttachExec(
            container=record.id,
            exec=ExecId(exec_id),
            is_tty=body.Tty,
            height=size[0] if len(size) == 2 else 0,
            width=size[1] if len(size) == 2 else 0,
        )
        return await _hijacked(request, record, wish, is_tty=body.Tty)

    @routes.post("/exec/{exec_id}/resize")
    async def resize_exec(exec_id: str, request: Request) -> Response:
        record = owner(exec_id)
        wish = Resize(
            container=record.id,
            exec=ExecId(exec_id),
            height=number(request, "h", 0),
            width=number(request, "w", 0),
        )
        await fleet.ask(RESIZE, wish, record)
        return Response(status_code=200)

    @routes.get("/exec/{exec_id}/json")
    async def inspect_exec(exec_id: str) -> Response:
        record = owner(exec_id)
        status = await fleet.ask(
            INSPECT_EXEC, ExecRef(container=record.id, exec=ExecId(exec_id)), record
        )
        spec = status.spec
        return answer(
            {
                "ID": exec_id,
                "Running": status.is_running,
                "ExitCode": status.exit_code,
                "ProcessConfig": {
                    "tty": spec.is_tty,
                    "entrypoint": spec.argv[0],
                    "arguments": spec.argv[1:],
                    "privileged": False,
                    "user": spec.user,
                },
                "OpenStdin": spec.attach_stdin,
                "OpenStdout": spec.attach_stdout,
                "OpenStderr": spec.attach_stderr,
                "CanRemove": not status.is_running,
                "ContainerID": record.id,
                "DetachKeys": spec.detach_keys,
                "Pid": status.pid,
            }
        )

    # -- cp

    @routes.head("/containers/{text}/archive")
    async def stat_archive(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = StatPath(container=record.id, path=_path(request))
        about = await fleet.ask(STAT_PATH, wish, record)
        return Response(status_code=200, headers={_STAT_HEADER: _encoded(about)})

    @routes.get("/containers/{text}/archive")
    async def get_archive(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = ReadArchive(container=record.id, path=_path(request))
        return await _streamed(fleet, record, wish, "application/x-tar", with_stat=True)

    @routes.put("/containers/{text}/archive")
    async def put_archive(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = WriteArchive(
            container=record.id,
            path=_path(request),
            refuse_dir_overwrite=flag(request, "noOverwriteDirNonDir"),
            keep_ownership=flag(request, "copyUIDGID"),
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

    return routes


async def _streamed(
    fleet: Fleet,
    record: ContainerRecord,
    wish: StreamRequest,
    media_type: str,
    *,
    with_stat: bool = False,
) -> Response:
    """Answer with what the host sends; errors before its first byte become the answer."""
    stack = AsyncExitStack()
    host = await stack.enter_async_context(fleet.stream(record, wish))
    headers = {"Content-Type": media_type}
    if with_stat:
        headers[_STAT_HEADER] = _encoded(PathStat.model_validate(host.detail))

    async def body() -> AsyncIterator[bytes]:
        async with stack:
            while data := await host.read(256 << 10):
                yield data

    return StreamingResponse(body(), headers=headers)


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


def _tail(text: str) -> int | None:
    if text in ("", "all") or text.startswith("-"):
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequestError(f"tail: {text!r} is neither a number nor all")
    return int(text)
