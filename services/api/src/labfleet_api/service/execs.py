"""Routes of execs: further processes in a running container."""

import base64
import secrets

from fastapi import APIRouter, Request, Response

from labfleet_api.core import detach_keys
from labfleet_api.core.activity import require_active
from labfleet_api.core.bodies import ExecBody, ExecStartBody
from labfleet_api.core.older_clients import sizes_consoles
from labfleet_api.core.process import terminal_size
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, number, read_body, version_of
from labfleet_api.service.reaching import Reaching
from labfleet_api.service.relays import hijacked
from labfleet_chassis.caller import caller_is_admin
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
)
from labfleet_proto.ids import ExecId
from labfleet_proto.runtime import (
    CREATE_EXEC,
    INSPECT_EXEC,
    RESIZE,
    START_EXEC,
    CreateExec,
    ExecRef,
    Resize,
)
from labfleet_proto.streams import AttachExec


def router(fleet: Fleet) -> APIRouter:  # noqa: C901 - a table of routes
    """Routes of execs."""
    routes = APIRouter()

    def owner(exec_id: str) -> ContainerRecord:
        for record in fleet.records():
            if len(exec_id) == 64 and record.id[:32] == exec_id[:32]:
                return record
        raise NotFoundError(f"No such exec instance: {exec_id}")

    @routes.post("/containers/{text}/exec")
    async def create_exec(text: str, request: Request) -> Response:
        body = await read_body(request, ExecBody)
        body.refuse_unserved()
        if body.Privileged and not caller_is_admin():
            raise ForbiddenError("Privileged: privileged execs are not allowed")
        if not body.Cmd:
            raise InvalidRequestError("No exec command specified")
        record = fleet.find(text)
        require_active(record, fleet.seen(record))
        keys = detach_keys.parse(body.DetachKeys)
        height, width = _size(body.ConsoleSize, request, is_tty=body.Tty)
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
            detach_keys=keys.hex(),
            height=height,
            width=width,
            is_privileged=body.Privileged,
        )
        await fleet.ask(CREATE_EXEC, wish, record)
        words = f"exec_create: {' '.join(body.Cmd)}"
        await Reaching(fleet).tell(record, words, {"execID": exec_id})
        return answer({"Id": exec_id}, 201)

    @routes.post("/exec/{exec_id}/start")
    async def start_exec(exec_id: str, request: Request) -> Response:
        body = await read_body(request, ExecStartBody)
        record = owner(exec_id)
        reference = ExecRef(container=record.id, exec=ExecId(exec_id))
        require_active(record, fleet.seen(record))
        if body.Detach:
            await fleet.ask(START_EXEC, reference, record)
            return Response(status_code=200)
        height, width = _size(body.ConsoleSize, request, is_tty=body.Tty)
        wish = AttachExec(
            container=record.id,
            exec=ExecId(exec_id),
            is_tty=body.Tty,
            height=height,
            width=width,
        )
        return await hijacked(fleet, request, record, wish, is_tty=body.Tty)

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
                    "arguments": list(spec.argv[1:]),
                    "privileged": spec.is_privileged,
                    "user": spec.user,
                },
                "OpenStdin": spec.attach_stdin,
                "OpenStdout": spec.attach_stdout,
                "OpenStderr": spec.attach_stderr,
                "CanRemove": False,
                "ContainerID": record.id,
                "DetachKeys": base64.b64encode(bytes.fromhex(spec.detach_keys)).decode(),
                "Pid": status.pid,
            }
        )

    return routes


def _size(asked: list[int] | None, request: Request, *, is_tty: bool) -> tuple[int, int]:
    """Height and width of a new terminal; 0 where nothing, or nothing that counts, was asked."""
    return terminal_size(asked if is_tty and sizes_consoles(version_of(request)) else None)
