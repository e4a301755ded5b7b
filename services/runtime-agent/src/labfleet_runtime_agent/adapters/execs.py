"""Further processes in a running container, run by crun without a monitor (ADR 0003)."""

import array
import asyncio
import contextlib
import fcntl
import json
import os
import socket
import struct
import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labfleet_chassis.data_port import ByteStream
from labfleet_proto.errors import ConflictError, UnavailableError
from labfleet_proto.runtime import CreateExec, ExecStatus
from labfleet_runtime_agent.adapters.conmon import Runtime
from labfleet_runtime_agent.core.frames import STDERR, STDOUT, frame

_CRUN_FAILED = 255
"""Exit code of crun when the process could not be run; its log then says why."""
_CHUNK = 1 << 16
_CONSOLE_LIMIT_S = 10.0


@dataclass
class Exec:
    """One exec, from its creation until its container is gone."""

    spec: CreateExec
    is_started: bool = False
    exit_code: int | None = None
    pid: int = 0
    terminal: int | None = None
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
        """Set the terminal's size; without a terminal nothing."""
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def begin(self) -> None:
        """Mark as started; an exec runs once. Raises ConflictError."""
        if self.is_started:
            raise ConflictError(f"exec {self.spec.exec} has already run")
        self.is_started = True


def _enter(files: Sequence[int]) -> Callable[[], None]:
    def enter() -> None:
        for fd in files:
            os.write(fd, b"0")

    return enter


async def run(
    runtime: Runtime,
    one: Exec,
    process: dict[str, Any],
    cgroup_files: Sequence[Path],
    scratch: Path,
    stream: ByteStream | None,
) -> None:
    """Run an exec to its end; bytes go to and from `stream`, or nowhere.

    Args:
        runtime: crun of this host.
        one: The exec; its exit code is set at the end, 126 or 127 if the command cannot be run.
        process: The `process` object of the OCI runtime-spec.
        cgroup_files: Where the new process writes 0 to enter the container's groups.
        scratch: Directory for the process file and the console socket.
        stream: The attached client.
    """
    file = scratch / f"exec-{one.spec.exec[32:48]}.json"
    file.write_text(json.dumps(process))
    complaint = file.with_suffix(".log")
    handles = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in cgroup_files]
    argv = runtime.crun_argv("--log", str(complaint), "exec", "--process", str(file))
    try:
        if one.spec.is_tty:
            await _run_on_terminal(argv, one, handles, scratch, stream)
        else:
            await _run_on_pipes(argv, one, handles, stream)
    finally:
        for handle in handles:
            os.close(handle)
        file.unlink(missing_ok=True)
        if one.exit_code is None:
            one.exit_code = 137
        if one.exit_code == _CRUN_FAILED and complaint.exists():
            said = complaint.read_text(errors="replace").lower()
            one.exit_code = 126 if "permission denied" in said else 127
        complaint.unlink(missing_ok=True)
        one.ended.set()


async def _run_on_pipes(
    argv: list[str], one: Exec, handles: list[int], stream: ByteStream | None
) -> None:
    pipe = asyncio.subprocess.PIPE if stream is not None else asyncio.subprocess.DEVNULL
    wants_in = stream is not None and one.spec.attach_stdin
    child = await asyncio.create_subprocess_exec(
        *argv,
        one.spec.container,
        stdin=pipe if wants_in else asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        preexec_fn=_enter(handles),
        limit=1 << 18,
    )
    one.pid = child.pid
    if stream is None:
        one.exit_code = await _code(child)
        return
    wanted = {STDOUT: one.spec.attach_stdout, STDERR: one.spec.attach_stderr}
    sending = asyncio.Lock()

    async def carry_out(kind: int, source: asyncio.StreamReader | None) -> None:
        while source is not None and (data := await source.read(_CHUNK)):
            if wanted[kind]:
                async with sending:
                    await stream.write(frame(kind, data))

    try:
        async with asyncio.TaskGroup() as tasks:
            inward = tasks.create_task(_carry_in(stream, child.stdin))
            out = tasks.create_task(carry_out(STDOUT, child.stdout))
            err = tasks.create_task(carry_out(STDERR, child.stderr))
            await asyncio.wait({out, err})
            one.exit_code = await _code(child)
            inward.cancel()
    except* ConnectionError:
        one.exit_code = await _code(child)


async def _carry_in(stream: ByteStream, target: asyncio.StreamWriter | None) -> None:
    """Carry the client's bytes; its half-close closes the process's standard input."""
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


async def _code(child: asyncio.subprocess.Process) -> int:
    code = await child.wait()
    return code if code >= 0 else 128 - code


async def _run_on_terminal(
    argv: list[str], one: Exec, handles: list[int], scratch: Path, stream: ByteStream | None
) -> None:
    path = scratch / f"tty-{one.spec.exec[32:40]}"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.setblocking(False)
        child = await asyncio.create_subprocess_exec(
            *argv,
            "--tty",
            "--console-socket",
            str(path),
            one.spec.container,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=_enter(handles),
        )
        one.pid = child.pid
        try:
            one.terminal = await _receive_terminal(listener, child)
        finally:
            path.unlink(missing_ok=True)
    try:
        if one.terminal is None or stream is None:
            await _complain(child, stream)
        else:
            await _carry_terminal(one.terminal, stream, child)
        one.exit_code = await _code(child)
    finally:
        if one.terminal is not None:
            os.close(one.terminal)
            one.terminal = None


async def _complain(child: asyncio.subprocess.Process, stream: ByteStream | None) -> None:
    said = await child.stderr.read() if child.stderr is not None else b""
    if stream is not None and said:
        await stream.write(said.replace(b"\n", b"\r\n"))


async def _receive_terminal(
    listener: socket.socket, child: asyncio.subprocess.Process
) -> int | None:
    """Receive the terminal's master from crun; None if crun ended without one."""
    loop = asyncio.get_running_loop()
    accept = asyncio.ensure_future(loop.sock_accept(listener))  # noqa: TID251 - awaited below
    ended = asyncio.ensure_future(child.wait())  # noqa: TID251 - awaited below
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
    terminal: int, stream: ByteStream, child: asyncio.subprocess.Process
) -> None:
    os.set_blocking(terminal, False)
    async with asyncio.TaskGroup() as tasks:
        inward = tasks.create_task(_type(terminal, stream))
        try:
            while data := await _read_terminal(terminal):
                await stream.write(data)
        except ConnectionError:
            await child.wait()
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


async def _type(terminal: int, stream: ByteStream) -> None:
    """Write the client's keys; at its end of input, type end-of-file."""
    with contextlib.suppress(ConnectionError, OSError):
        while data := await stream.read():
            view = memoryview(data)
            while view:
                try:
                    view = view[os.write(terminal, view) :]
                except BlockingIOError:
                    await asyncio.sleep(0.005)  # the terminal's queue is full: its reader is slow
        os.write(terminal, b"\x04")
