"""Further processes in a running container, run by crun without a monitor (ADR 0003)."""

import array
import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import termios
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from labfleet_chassis import process
from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import ConflictError, UnavailableError
from labfleet_proto.runtime import CreateExec, ExecStatus
from labfleet_runtime_agent.adapters.conmon import Runtime
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame

_CRUN_FAILED = 255
"""Exit code of crun when the process could not be run; its log then says why."""
_CHUNK = 1 << 16
_BUFFER = 1 << 18
_CONSOLE_LIMIT_S = 10.0


@dataclass
class Exec:
    """One exec, from its creation until its container is gone."""

    spec: CreateExec
    is_started: bool = False
    exit_code: int | None = None
    pid: int = 0
    terminal: int | None = None
    size: tuple[int, int] | None = None
    """Height and width as a client wished last, also before there was a terminal."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self) -> ExecStatus:
        """What inspect shows."""
        return ExecStatus(
            spec=self.spec,
            is_running=self.is_started and self.exit_code is None,
            exit_code=self.exit_code,
            pid=self.pid,
        )

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size, now or when there is one."""
        self.size = (height, width)
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def begin(self) -> None:
        """Mark as started; an exec runs once. Raises ConflictError."""
        if self.is_started:
            raise ConflictError(f"exec {self.spec.exec} has already run")
        self.is_started = True


_ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift; exec "$@"'
"""Enters control groups, then becomes the program: a function in the child would cost a whole fork."""


def _entering(cgroup_files: Sequence[Path], argv: list[str]) -> list[str]:
    """Command line that runs `argv` inside control groups."""
    return ["/bin/sh", "-c", _ENTER, "sh", *map(str, cgroup_files), "--", *argv]


async def run(
    runtime: Runtime,
    one: Exec,
    oci_process: dict[str, Any],
    cgroup_files: Sequence[Path],
    scratch: Path,
    stream: ByteStream | None,
) -> None:
    """Run an exec to its end; bytes go to and from `stream`, or nowhere.

    Args:
        runtime: crun of this host.
        one: The exec; its exit code is set at the end, 126 or 127 if the command cannot be run.
        oci_process: The `process` object of the OCI runtime-spec.
        cgroup_files: Where the new process writes 0 to enter the container's groups.
        scratch: Directory for the process file and the console socket.
        stream: The attached client.
    """
    file = scratch / f"exec-{one.spec.exec[32:48]}.json"
    file.write_text(json.dumps(oci_process))
    complaint = file.with_suffix(".log")
    argv = runtime.crun_argv("--log", str(complaint), "exec", "--process", str(file))
    argv = _entering(cgroup_files, argv)
    try:
        if one.spec.is_tty:
            await _run_on_terminal(argv, one, scratch, stream)
        else:
            await _run_on_pipes(argv, one, stream)
    finally:
        file.unlink(missing_ok=True)
        if one.exit_code is None:
            one.exit_code = 137
        if one.exit_code == _CRUN_FAILED and complaint.exists():
            said = complaint.read_text(errors="replace").lower()
            is_refused = "denied" in said or "not permitted" in said  # the latter of a directory
            one.exit_code = 126 if is_refused else 127
        complaint.unlink(missing_ok=True)
        one.ended.set()


async def _run_on_pipes(argv: list[str], one: Exec, stream: ByteStream | None) -> None:
    pipe = subprocess.PIPE if stream is not None else subprocess.DEVNULL
    wants_in = stream is not None and one.spec.attach_stdin
    child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
        [*argv, one.spec.container],
        stdin=pipe if wants_in else subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        bufsize=0,
    )
    one.pid = child.pid
    if stream is None:
        one.exit_code = await _code(child)
        return
    try:
        async with _reading(child.stdout) as out, _reading(child.stderr) as err:
            await _carry(one, stream, child.stdin, {STDOUT: out, STDERR: err})
    except* ConnectionError:  # the client is gone, the command goes on
        pass
    one.exit_code = await _code(child)


async def _carry(
    one: Exec, stream: ByteStream, stdin: IO[bytes] | None, sources: dict[int, asyncio.StreamReader]
) -> None:
    """Carry bytes until the command has closed its output."""
    wanted = {STDOUT: one.spec.attach_stdout, STDERR: one.spec.attach_stderr}
    sending = asyncio.Lock()

    async def carry_out(kind: int, source: asyncio.StreamReader) -> None:
        while data := await source.read(_CHUNK):
            if wanted[kind]:
                async with sending:
                    await stream.write(frame(kind, data))

    async with TaskGroup() as tasks:
        inward = tasks.create_task(_carry_in(stream, stdin))
        outward = [tasks.create_task(carry_out(kind, source)) for kind, source in sources.items()]
        await asyncio.wait(outward)
        inward.cancel()


@contextlib.asynccontextmanager
async def _reading(pipe: IO[bytes] | None) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader(limit=_BUFFER)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    try:
        yield reader
    finally:
        transport.close()


async def _carry_in(stream: ByteStream, stdin: IO[bytes] | None) -> None:
    """Carry the client's bytes; its half-close closes the process's standard input."""
    target: asyncio.StreamWriter | None = None
    if stdin is not None:
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, stdin)
        target = asyncio.StreamWriter(transport, protocol, None, loop)
    try:
        while data := await stream.read(_CHUNK):
            if target is not None:
                target.write(data)
                await target.drain()
    except ConnectionError:
        return
    finally:
        if target is not None:
            target.close()


async def _code(child: subprocess.Popen[bytes]) -> int:
    code = await process.ended(child)
    return code if code >= 0 else 128 - code


async def _run_on_terminal(
    argv: list[str], one: Exec, scratch: Path, stream: ByteStream | None
) -> None:
    name = f"tty-{one.spec.exec[32:40]}"
    (scratch / name).unlink(missing_ok=True)
    with (
        _directory(scratch) as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
        os.fdopen(os.memfd_create("stderr"), "w+b", buffering=0) as complaint,
    ):
        # By descriptor: the path itself is longer than the 107 bytes that a socket's address has.
        path = f"/proc/{os.getpid()}/fd/{folder}/{name}"
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
            [*argv, "--tty", "--console-socket", path, one.spec.container],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=complaint,
        )
        one.pid = child.pid
        try:
            one.terminal = await _receive_terminal(listener, child)
        finally:
            (scratch / name).unlink(missing_ok=True)
        try:
            if one.size is not None:
                one.resize(*one.size)
            if one.terminal is not None and stream is not None:
                await _carry_terminal(one, one.terminal, stream, child)
            one.exit_code = await _code(child)
        finally:
            if one.terminal is not None:
                os.close(one.terminal)
                one.terminal = None
        complaint.seek(0)
        if stream is not None and (said := complaint.read()):
            await stream.write(said.replace(b"\n", b"\r\n"))


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _receive_terminal(listener: socket.socket, child: subprocess.Popen[bytes]) -> int | None:
    """Receive the terminal's master from crun; None if crun ended without one."""
    loop = asyncio.get_running_loop()
    accept = asyncio.ensure_future(loop.sock_accept(listener))  # noqa: TID251 - awaited below
    ended = asyncio.ensure_future(process.ended(child))  # noqa: TID251 - awaited below
    try:
        async with asyncio.timeout(_CONSOLE_LIMIT_S):
            await asyncio.wait({accept, ended}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError as exc:
        raise UnavailableError("crun did not hand over the terminal") from exc
    finally:
        ended.cancel()
        if not accept.done():
            accept.cancel()
    if accept.cancelled() or not accept.done():
        return None
    link, _ = accept.result()
    with link:
        link.setblocking(True)
        size = array.array("i").itemsize
        _, ancillary, _, _ = await asyncio.to_thread(link.recvmsg, 4096, socket.CMSG_SPACE(size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            return int(array.array("i", data[:size])[0])
    return None


async def _carry_terminal(
    one: Exec, terminal: int, stream: ByteStream, child: subprocess.Popen[bytes]
) -> None:
    os.set_blocking(terminal, False)
    async with TaskGroup() as tasks:
        inward = tasks.create_task(_type(terminal, stream, is_wanted=one.spec.attach_stdin))
        try:
            while data := await _read_terminal(terminal):
                await stream.write(data)
        except ConnectionError:
            await process.ended(child)
        inward.cancel()


async def _readable(terminal: int) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(terminal, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(terminal)


async def _read_terminal(terminal: int) -> bytes:
    """Return output, or nothing once the other side is closed (EIO)."""
    while True:
        try:
            return os.read(terminal, _CHUNK)
        except BlockingIOError:
            await _readable(terminal)
        except OSError:
            return b""


async def _type(terminal: int, stream: ByteStream, *, is_wanted: bool) -> None:
    """Write the client's keys; at its end of input, type end-of-file. What is not wanted is read away."""
    with contextlib.suppress(ConnectionError, OSError):
        while data := await stream.read():
            if not is_wanted:
                continue
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(terminal, view) :]
                except BlockingIOError:
                    await asyncio.sleep(0.005)  # the terminal's queue is full: its reader is slow
        if is_wanted:
            os.write(terminal, b"\x04")
