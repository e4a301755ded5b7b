"""Execs of this host's containers: made, started with a client or without, told about, resized."""

import asyncio
from typing import cast

from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_proto.errors import (
    CommandNotRunnableError,
    ConflictError,
    LabfleetError,
    NotFoundError,
)
from labfleet_proto.ids import ExecId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.runtime import (
    CreateExec,
    ExecRef,
    ExecStatus,
    Resize,
)
from labfleet_proto.streams import AttachExec
from labfleet_runtime_agent.adapters import execs, processes
from labfleet_runtime_agent.adapters.exec_client import ExecClient
from labfleet_runtime_agent.adapters.execs import Exec
from labfleet_runtime_agent.core.frames import STDOUT
from labfleet_runtime_agent.metrics import EXECS
from labfleet_runtime_agent.service.agent import Agent
from labfleet_runtime_agent.service.exec_process import oci_process
from labfleet_runtime_agent.service.worker import Worker

_MOST_EXECS = 1000
_START_LIMIT_S = 20.0
_CANNOT_RUN = 126


class Execs:
    """All execs of this host."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    # -- jobs

    async def create(self, job: Job, args: CreateExec) -> Nothing:
        """Prepare an exec; repeating with the same id is nothing."""
        worker = await self._agent.find(job.tenant, args.container)
        worker.init()
        worker.require_unpaused()
        for old in [key for key, one in worker.execs.items() if one.exit_code is not None]:
            if len(worker.execs) < _MOST_EXECS:
                break
            del worker.execs[old]
        if len(worker.execs) >= _MOST_EXECS:
            raise ConflictError(f"container {args.container} has {_MOST_EXECS} running execs")
        one = Exec(args)
        if args.height and args.width:
            one.resize(args.height, args.width)
        worker.execs.setdefault(args.exec, one)
        return Nothing()

    async def start(self, job: Job, args: ExecRef) -> Nothing:
        """Start an exec without a client; returns when its command runs.

        Raises CommandNotRunnableError. A repeated job finds the exec started, which is a conflict.
        """
        worker = await self._agent.find(job.tenant, args.container)
        one = _exec_of(worker, args.exec)
        worker.init()
        worker.require_unpaused()
        one.begin()
        failure: asyncio.Future[LabfleetError] = asyncio.get_running_loop().create_future()
        self._agent.admission.spawn("exec", self._run(worker, one, None, failure))
        await one.begun(_START_LIMIT_S)
        if failure.done():
            raise failure.result()
        return Nothing()

    async def inspect(self, job: Job, args: ExecRef) -> ExecStatus:
        """Return an exec's state."""
        worker = await self._agent.find(job.tenant, args.container)
        return _exec_of(worker, args.exec).status()

    async def resize(self, job: Job, args: Resize) -> Nothing:
        """Set the size of a terminal; repeating is harmless."""
        worker = await self._agent.find(job.tenant, args.container)
        if args.exec is not None:
            _exec_of(worker, args.exec).resize(args.height, args.width)
            return Nothing()
        worker.init()
        line = f"1 {args.height} {args.width}\n"
        await asyncio.to_thread(_write_fifo, worker, line)
        size = {"height": str(args.height), "width": str(args.width)}
        await self._agent.tools.emit(worker.record, "resize", size)
        return Nothing()

    # -- with a client

    async def attach(
        self, worker: Worker, request: AttachExec, stream: ByteStream, accept: Accept
    ) -> None:
        """Start an exec with a client; returns when the exec is over or the client has left it."""
        one = _exec_of(worker, request.exec)
        worker.init()
        worker.require_unpaused()
        one.begin()
        if request.height and request.width:
            one.resize(request.height, request.width)
        await accept({"is_tty": one.spec.is_tty})
        client = ExecClient(stream, one.spec, is_framed=not request.is_tty)
        failure: asyncio.Future[LabfleetError] = asyncio.get_running_loop().create_future()
        self._agent.admission.spawn("exec", self._run(worker, one, client, failure))
        await client.over.wait()
        stream.write_eof()
        if client.has_detached:
            about = {"execID": str(one.spec.exec)}
            await self._agent.tools.emit(worker.record, "exec_detach", about)

    async def _run(
        self,
        worker: Worker,
        one: Exec,
        client: ExecClient | None,
        failure: "asyncio.Future[LabfleetError]",
    ) -> None:
        """Run an exec; why it could not run goes to its client, or to who waits for its start."""
        EXECS.inc()
        tools, record = self._agent.tools, worker.record
        about = {"execID": str(one.spec.exec)}
        try:
            await tools.emit(record, f"exec_start: {' '.join(one.spec.argv)}", about)
            init = worker.init()
            process = await oci_process(record, init, one.spec)
            if one.size is not None:
                process["consoleSize"] = {"height": one.size[0], "width": one.size[1]}
            groups = tools.cgroups.enter_files(record.id)
            one.beside = init.pid
            one.owner = processes.outside(init.pid, cast("dict[str, int]", process["user"])["uid"])
            await execs.run(tools.runtime, one, process, groups, worker.bundle, client)
        except Exception as exc:  # whatever it was, who waits for the exec hears it
            error = exc if isinstance(exc, LabfleetError) else ConflictError(f"exec: {exc}")
            failure.set_result(error)
            one.finish(_CANNOT_RUN)
            if not isinstance(error, CommandNotRunnableError):
                is_bug = not isinstance(exc, LabfleetError | OSError)
                tools.log.warning(
                    "exec.failed", container=record.id, error=error.message, exc_info=is_bug
                )
            if client is not None:
                await client.send(STDOUT, f"{error.message}\r\n".encode())
        finally:
            one.finish(_CANNOT_RUN)
            if client is not None:
                client.over.set()
        await tools.emit(record, "exec_die", {**about, "exitCode": str(one.exit_code)})


def _exec_of(worker: Worker, exec_id: ExecId) -> Exec:
    """A container's exec. Raises NotFoundError."""
    one = worker.execs.get(exec_id)
    if one is None:
        raise NotFoundError(f"No such exec instance: {exec_id}")
    return one


def _write_fifo(worker: Worker, line: str) -> None:
    """Tell the monitor a new size. Raises ConflictError when it is gone."""
    try:
        with (worker.bundle / "ctl").open("r+b", buffering=0) as fifo:
            fifo.write(line.encode())
    except OSError as exc:
        raise ConflictError(f"resize {worker.record.id}: {exc.strerror}") from exc
