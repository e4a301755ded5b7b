"""The data port's streams: attach, exec, logs, archives."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace

from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_chassis.output_blocks import Kind, block
from labfleet_proto.builds import BuildImage
from labfleet_proto.containers import Observation, State
from labfleet_proto.errors import InvalidRequestError, LabfleetError
from labfleet_proto.image_streams import AddImage, LoadImages, PullImage, SaveImages
from labfleet_proto.layers import ReadBlob
from labfleet_proto.message import Message
from labfleet_proto.streams import (
    AttachContainer,
    AttachExec,
    ExportFiles,
    LogPosition,
    ReadArchive,
    ReadChanges,
    ReadLayer,
    ReadLogs,
    Ticket,
    WriteArchive,
)
from labfleet_runtime_agent.adapters import (
    archive,
    image_users,
    layer_reading,
)
from labfleet_runtime_agent.adapters.attach import Attachment
from labfleet_runtime_agent.metrics import STREAMS
from labfleet_runtime_agent.service import logs, resuming
from labfleet_runtime_agent.service.agent import Agent
from labfleet_runtime_agent.service.builds import Builds
from labfleet_runtime_agent.service.execs import Execs
from labfleet_runtime_agent.service.uploads import Uploads
from labfleet_runtime_agent.service.worker import Worker

_MOST_EXECS = 1000


def _plainly(stream: ByteStream) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        await stream.write(block(Kind.PLAIN, data))

    return write


class StreamEnd(Message):
    """Last line of an uploaded archive's stream."""

    error: str = ""
    code: str = ""


class Streams:
    """Serves byte streams of this host's containers."""

    def __init__(self, agent: Agent, builds: Builds, uploads: Uploads) -> None:
        self._agent = agent
        self._builds = builds
        self._uploads = uploads
        self.execs = Execs(agent)

    async def serve(  # noqa: C901 - a table of streams
        self, ticket: Ticket, stream: ByteStream, accept: Accept
    ) -> None:
        """Serve one stream of the data port."""
        request = ticket.request
        if isinstance(request, SaveImages | LoadImages | PullImage | AddImage):
            raise InvalidRequestError(f"{request.op} is the image store's to serve")
        if isinstance(request, BuildImage):
            await self._builds.serve(ticket.tenant, request, stream, accept)
            return
        if isinstance(request, ReadBlob):
            await self._uploads.serve(request, stream, accept)
            return
        worker = await self._agent.find(ticket.tenant, request.container)
        with STREAMS.labels(request.op).track_inprogress():
            match request:
                case AttachContainer():
                    await self._attach(worker, request, stream, accept)
                case AttachExec():
                    await self.execs.attach(worker, request, stream, accept)
                case ReadLogs():
                    await accept({})
                    await logs.send(worker, request, stream, self._agent.tools.clock.now_ns)
                case ReadArchive():
                    await self._read_archive(worker, request, stream, accept)
                case WriteArchive():
                    await self._write_archive(worker, request, stream, accept)
                case ReadChanges():
                    layer = await worker.writable_layer()
                    await accept({})
                    await layer_reading.write_changes(layer, stream.write)
                case ReadLayer():
                    await self._read_layer(worker, request, stream, accept)
                case ExportFiles():
                    async with worker.root() as view:
                        await accept({})
                        await archive.export(view, stream.write)
                    await self._agent.tools.emit(worker.record, "export")

    async def _attach(
        self, worker: Worker, request: AttachContainer, stream: ByteStream, accept: Accept
    ) -> None:
        tools, record = self._agent.tools, worker.record
        is_tty = record.spec.is_tty
        log = worker.log_file if record.spec.log.driver != "none" else None
        seen, is_new = worker.seen, request.resume is None
        if request.resume is not None and _is_awaited(request.resume, seen):
            request = request.model_copy(update={"resume": None})
        last_run = 0 if seen is None else seen.run if seen.state >= State.RUNNING else seen.run - 1
        attachment = Attachment(request, stream, log, is_tty=is_tty, last_run=last_run)
        if request.resume is not None and not (request.with_stdin and worker.is_running):
            attachment.cancel()  # its output comes out of the log
        elif request.is_live:
            worker.attach(attachment)
        try:
            position = attachment.position()
            where = position.model_dump(mode="json") if position is not None else None
            await accept({"is_tty": is_tty, "position": where})
            if request.with_logs:
                wanted = ReadLogs(
                    container=request.container,
                    with_stdout=request.with_stdout,
                    with_stderr=request.with_stderr,
                )
                write = _plainly(stream) if request.is_in_blocks else stream.write
                await logs.replay(worker, wanted, write, is_framed=request.is_framed)
            if request.resume is not None:
                rest = resuming.follow(worker, request, request.resume, stream.write)
                await attachment.carry(rest)
            else:
                if is_new:
                    await tools.emit(record, "attach")
                if request.is_live:
                    await attachment.carry()
        finally:
            worker.detach(attachment)
            attachment.close()
        if request.is_in_blocks:
            await stream.write(block(Kind.END))
        stream.write_eof()
        if attachment.has_detached:
            await tools.emit(record, "detach")

    @staticmethod
    async def _read_layer(
        worker: Worker, request: ReadLayer, stream: ByteStream, accept: Accept
    ) -> None:
        layer = await worker.writable_layer()
        async with contextlib.AsyncExitStack() as stack:
            if request.is_still:
                await stack.enter_async_context(worker.standing_still())
            await accept({})
            await layer_reading.write_tar(layer, stream.write)

    async def _read_archive(
        self, worker: Worker, request: ReadArchive, stream: ByteStream, accept: Accept
    ) -> None:
        async with worker.files() as bare:
            view = replace(bare, shown_as=request.shown_as)
            about = await archive.stat_path(view, request.path)
            await accept(about.model_dump(mode="json"))
            await archive.read(view, request.path, stream.write)
        await self._agent.tools.emit(worker.record, "archive-path")

    async def _write_archive(
        self, worker: Worker, request: WriteArchive, stream: ByteStream, accept: Accept
    ) -> None:
        end = StreamEnd()
        spec = worker.record.spec
        async with worker.files() as bare:
            view = replace(bare, shown_as=request.shown_as)
            owner = None
            if request.keep_ownership and spec.user:
                who = await asyncio.to_thread(image_users.look_up_at, view.root_fd, spec.user, ())
                owner = (who.uid, who.gid)
            target = archive.Target(
                path=request.path,
                owner=owner,
                refuse_type_change=request.refuse_dir_overwrite,
                is_root_read_only=spec.is_rootfs_read_only,
                mounts=tuple((mount.target, mount.read_only) for mount in spec.mounts),
            )
            await archive.check_target(view, target)
            await accept({})
            try:
                await archive.write(view, target, stream.read)
            except LabfleetError as exc:
                end = StreamEnd(error=exc.message, code=exc.code)
        await self._agent.tools.emit(worker.record, "extract-to-dir")
        await stream.write(end.model_dump_json().encode() + b"\n")


def _is_awaited(position: LogPosition, seen: Observation | None) -> bool:
    """Whether the run that a client waits for has not begun yet."""
    if position.after_run is None:
        return False
    return seen is None or seen.run <= position.after_run or seen.state < State.RUNNING
