"""The data port's streams: attach, exec, logs, archives."""

import asyncio
import contextlib
from pathlib import Path

from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_proto.errors import ConflictError, LabfleetError, NotFoundError
from labfleet_proto.ids import ExecId
from labfleet_proto.jobs import Job
from labfleet_proto.message import Message, Nothing
from labfleet_proto.runtime import (
    AttachContainer,
    AttachExec,
    CreateExec,
    ExecRef,
    ExecStatus,
    ExportFiles,
    ReadArchive,
    ReadChanges,
    ReadLayer,
    ReadLogs,
    Resize,
    Ticket,
    WriteArchive,
)
from labfleet_runtime_agent.adapters import (
    archive,
    execs,
    host_facts,
    image_users,
    layer_reading,
    log_files,
)
from labfleet_runtime_agent.adapters.attach import Attachment
from labfleet_runtime_agent.adapters.execs import Exec
from labfleet_runtime_agent.core import spec as oci
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame
from labfleet_runtime_agent.core.spec import HostPart
from labfleet_runtime_agent.metrics import EXECS, STREAMS
from labfleet_runtime_agent.service.agent import Agent
from labfleet_runtime_agent.service.worker import Worker

_MOST_EXECS = 1000


class StreamEnd(Message):
    """Last line of an uploaded archive's stream."""

    error: str = ""
    code: str = ""


class Streams:
    """Serves byte streams and execs of this host's containers."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def serve(self, ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        """Serve one stream of the data port."""
        request = ticket.request
        worker = await self._agent.find(ticket.tenant, request.container)
        with STREAMS.labels(request.op).track_inprogress():
            match request:
                case AttachContainer():
                    await self._attach(worker, request, stream, accept)
                case AttachExec():
                    await self._exec(worker, request, stream, accept)
                case ReadLogs():
                    await accept({})
                    await self._logs(worker, request, stream)
                case ReadArchive():
                    await self._read_archive(worker, request, stream, accept)
                case WriteArchive():
                    await self._write_archive(worker, request, stream, accept)
                case ReadChanges():
                    layer = await worker.writable_layer()
                    await accept({})
                    await layer_reading.write_changes(layer, stream.write)
                case ReadLayer():
                    layer = await worker.writable_layer()
                    await accept({})
                    await layer_reading.write_tar(layer, stream.write)
                case ExportFiles():
                    async with worker.root() as view:
                        await accept({})
                        await archive.export(view, stream.write)
                    await self._agent.tools.emit(worker.record, "export")

    async def _attach(
        self, worker: Worker, request: AttachContainer, stream: ByteStream, accept: Accept
    ) -> None:
        spec = worker.record.spec
        attachment = Attachment(request, stream, is_tty=spec.is_tty)
        if request.is_live:
            worker.attach(attachment)
        await accept({"is_tty": spec.is_tty})
        if request.with_logs:
            wanted = ReadLogs(
                container=request.container,
                with_stdout=request.with_stdout,
                with_stderr=request.with_stderr,
            )
            await self._logs(worker, wanted, stream)
        if request.is_live:
            try:
                await attachment.carry()
            finally:
                worker.detach(attachment)

    async def _logs(self, worker: Worker, request: ReadLogs, stream: ByteStream) -> None:
        is_tty = worker.record.spec.is_tty
        lines = log_files.read(worker.log_file, request, lambda: not worker.is_running)
        async with contextlib.aclosing(lines):
            async for line in lines:
                payload = line.payload(with_timestamp=request.with_timestamps)
                if is_tty:
                    await stream.write(payload)
                else:
                    await stream.write(frame(STDERR if line.is_stderr else STDOUT, payload))

    async def _read_archive(
        self, worker: Worker, request: ReadArchive, stream: ByteStream, accept: Accept
    ) -> None:
        async with worker.files() as view:
            about = await archive.stat_path(view, request.path)
            await accept(about.model_dump(mode="json"))
            await archive.read(view, request.path, stream.write)

    async def _write_archive(
        self, worker: Worker, request: WriteArchive, stream: ByteStream, accept: Accept
    ) -> None:
        end = StreamEnd()
        async with worker.files() as view:
            about = await archive.stat_path(view, request.path)
            await accept(about.model_dump(mode="json"))
            try:
                await archive.write(
                    view,
                    request.path,
                    stream.read,
                    keep_owner=request.keep_ownership,
                    refuse_type_change=request.refuse_dir_overwrite,
                )
            except LabfleetError as exc:
                end = StreamEnd(error=exc.message, code=exc.code)
        await stream.write(end.model_dump_json().encode() + b"\n")

    # -- exec

    async def create_exec(self, job: Job, args: CreateExec) -> Nothing:
        """Prepare an exec; repeating with the same id is nothing."""
        worker = await self._agent.find(job.tenant, args.container)
        worker.init()
        for old in [key for key, one in worker.execs.items() if one.exit_code is not None]:
            if len(worker.execs) < _MOST_EXECS:
                break
            del worker.execs[old]
        if len(worker.execs) >= _MOST_EXECS:
            raise ConflictError(f"container {args.container} has {_MOST_EXECS} running execs")
        worker.execs.setdefault(args.exec, Exec(args))
        return Nothing()

    async def start_exec(self, job: Job, args: ExecRef) -> Nothing:
        """Start an exec detached."""
        worker = await self._agent.find(job.tenant, args.container)
        one = _exec_of(worker, args.exec)
        one.begin()
        ready = asyncio.Event()
        self._agent.admission.spawn(self._run(worker, one, None, ready))
        await ready.wait()
        return Nothing()

    async def inspect_exec(self, job: Job, args: ExecRef) -> ExecStatus:
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
        return Nothing()

    async def _exec(
        self, worker: Worker, request: AttachExec, stream: ByteStream, accept: Accept
    ) -> None:
        one = _exec_of(worker, request.exec)
        worker.init()
        one.begin()
        await accept({"is_tty": one.spec.is_tty})
        await self._run(worker, one, stream, asyncio.Event())
        stream.write_eof()

    async def _run(
        self, worker: Worker, one: Exec, stream: ByteStream | None, ready: asyncio.Event
    ) -> None:
        """Run an exec; its failures become its exit code and words on its stream."""
        EXECS.inc()
        tools = self._agent.tools
        record = worker.record
        try:
            process = await self._process(worker, one)
            ready.set()
            await tools.emit(record, f"exec_start: {' '.join(one.spec.argv)}")
            await execs.run(
                tools.runtime,
                one,
                process,
                tools.cgroups.enter_files(record.id),
                worker.bundle,
                stream,
            )
        except LabfleetError as exc:
            one.exit_code = 126 if one.exit_code is None else one.exit_code
            if stream is not None:
                words = f"OCI runtime exec failed: {exc.message}\r\n".encode()
                await stream.write(words if one.spec.is_tty else frame(STDERR, words))
        finally:
            ready.set()
        code = {"execID": one.spec.exec, "exitCode": str(one.exit_code)}
        await tools.emit(record, "exec_die", code)

    async def _process(self, worker: Worker, one: Exec) -> dict[str, object]:
        """The OCI process of an exec: the container's limits and powers, the exec's own words."""
        init = worker.init()
        spec = worker.record.spec
        asked = one.spec
        user = asked.user or spec.user
        root = Path(f"/proc/{init.pid}/root")
        who = await asyncio.to_thread(image_users.look_up, root, user, spec.group_add)
        named = {entry.partition("=")[0] for entry in asked.env}
        inherited = tuple(entry for entry in spec.env if entry.partition("=")[0] not in named)
        merged = spec.model_copy(
            update={
                "entrypoint": (),
                "command": asked.argv,
                "env": inherited + asked.env,
                "working_dir": asked.working_dir or spec.working_dir,
                "is_tty": asked.is_tty,
                "with_init": False,
            }
        )
        part = HostPart(
            rootfs="",
            uid_base=0,
            netns_path="",
            sysfs_path="",
            files={},
            volumes=(),
            hard_nofile=host_facts.hard_nofile(),
        )
        return oci.process(merged, part, who)


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
