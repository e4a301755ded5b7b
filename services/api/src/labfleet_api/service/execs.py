"""Routes of execs: further processes in a running container."""

import secrets

from fastapi import APIRouter, Request, Response

from labfleet_api.core.bodies import ExecBody, ExecStartBody
from labfleet_api.core.views import state_of
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, number, read_body
from labfleet_api.service.relays import hijacked
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import (
    ConflictError,
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
    AttachExec,
    CreateExec,
    ExecRef,
    Resize,
)


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

    return routes
