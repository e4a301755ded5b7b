"""Further processes in a running container, run by crun without a monitor (ADR 0003)."""

import array
import asyncio
import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import termios
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from labfleet_chassis import process
from labfleet_chassis.tasks import TaskGroup
from labfleet_proto.errors import (
    CommandNotRunnableError,
    ConflictError,
    InternalError,
    LabfleetError,
    UnavailableError,
)
from labfleet_proto.runtime import CreateExec, ExecStatus
from labfleet_runtime_agent.adapters import program_gate
from labfleet_runtime_agent.adapters.conmon import Runtime
from labfleet_runtime_agent.adapters.descriptors import Sink, Source, widen
from labfleet_runtime_agent.adapters.exec_client import ExecClient
from labfleet_runtime_agent.core.frames import STDERR, STDOUT

_CRUN_FAILED = 255
"""Exit code of crun when the process could not be run; its log then says why."""
_LOST = 137
"""Exit code of an exec whose end nobody saw."""
_NO_EXECUTABLE = re.compile(
    rb"[^\n]*(no such file|not found|denied|not permitted|chdir)[^\n]*\n", re.IGNORECASE
)
_LOG_LOOKS = 40
_FAILED = "OCI runtime exec failed: exec failed: unable to start container process"
_END_OF_FILE = b"\x04"
_CONSOLE_LIMIT_S = 10.0
_LOOK_EVERY_S = 0.005


@dataclass
class Exec:
    """One exec, from its creation until its container is gone."""

    spec: CreateExec
    is_started: bool = False
    exit_code: int | None = None
    pid_file: Path | None = None
    """Where crun writes the process's id once it runs."""
    complaint: Path | None = None
    """Where crun writes why it could not run it."""
    beside: int = 0
    """The container's first process."""
    owner: int = 0
    """The process's user as the host numbers it."""
    terminal: int | None = None
    size: tuple[int, int] | None = None
    """Height and width as a client wished last, also before there was a terminal."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    _pid: int = 0

    def status(self) -> ExecStatus:
        """What inspect shows."""
        return ExecStatus(
            spec=self.spec,
            is_running=self.is_started and self.exit_code is None,
            exit_code=self.exit_code,
            pid=self.pid,
        )

    @property
    def pid(self) -> int:
        """Its process on this host, also when it has ended; 0 before it runs."""
        if not self._pid and self.pid_file is not None:
            with contextlib.suppress(FileNotFoundError, ValueError):
                self._pid = int(self.pid_file.read_text())
        return self._pid

    async def begun(self, limit_s: float) -> None:
        """Wait until its process runs, or could not. Raises TimeoutError."""
        async with asyncio.timeout(limit_s):
            while not (self.pid or self.ended.is_set()):
                with contextlib.suppress(TimeoutError):  # crun's file tells nobody that it is there
                    async with asyncio.timeout(_LOOK_EVERY_S):
                        await self.ended.wait()

    def finish(self, code: int) -> None:
        """It is over; the first word about its end counts."""
        if self.exit_code is None:
            self.exit_code = code
        self._pid = self.pid
        self.ended.set()

    def resize(self, height: int, width: int) -> None:
        """Set the terminal's size, now or when there is one."""
        self.size = (height, width)
        if self.terminal is not None:
            fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def begin(self) -> None:
        """Mark as started; an exec runs once. Raises ConflictError."""
        if self.exit_code is not None:
            raise ConflictError(f"error: exec command {self.spec.exec} has already run")
        if self.is_started:
            raise ConflictError(f"error: exec command {self.spec.exec} is already running")
        self.is_started = True


_ENTER = 'while [ "$1" != -- ]; do echo 0 > "$1"; shift; done; shift; exec "$@"'
"""Enters control groups, then becomes the program: a function in the child would cost a whole fork."""


def entering(cgroup_files: Sequence[Path], argv: list[str]) -> list[str]:
    """Command line that runs `argv` inside control groups."""
    return ["/bin/sh", "-c", _ENTER, "sh", *map(str, cgroup_files), "--", *argv]


async def run(
    runtime: Runtime,
    one: Exec,
    oci_process: dict[str, Any],
    cgroup_files: Sequence[Path],
    scratch: Path,
    client: ExecClient | None,
) -> None:
    """Run an exec to its end; bytes go to and from `client`, or nowhere.

    Args:
        runtime: crun of this host.
        one: The exec; its exit code is set at the end, 126 or 127 if the command cannot be run.
        oci_process: The `process` object of the OCI runtime-spec.
        cgroup_files: Where the new process writes 0 to enter the container's groups.
        scratch: Directory for the process file and the console socket.
        client: Who is attached.

    Raises CommandNotRunnableError with docker's words, InternalError.
    """
    file = scratch / f"exec-{one.spec.exec[32:48]}.json"
    file.write_text(json.dumps(oci_process))
    complaint, one.pid_file = file.with_suffix(".log"), file.with_suffix(".pid")
    one.complaint = complaint
    argv = runtime.crun_argv("--log", str(complaint), "exec", "--process", str(file))
    argv += ["--pid-file", str(one.pid_file)]
    argv = entering(cgroup_files, argv)
    code = _LOST
    try:
        if one.spec.is_tty:
            code = await _run_on_terminal(argv, one, scratch, client)
        else:
            code = await _run_on_pipes(argv, one, client)
        said = _read(complaint) if code == _CRUN_FAILED else ""
        if said:
            code, error = failure(said, one.spec.argv[0])
            raise error
    finally:
        one.finish(code)
        for path in (file, complaint, one.pid_file):
            path.unlink(missing_ok=True)


def _read(path: Path) -> str:
    """A log's text; nothing if there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


def failure(said: str, command: str) -> tuple[int, LabfleetError]:
    """A shell's exit code, and docker's words, for what crun said of a command that it could not run."""
    text = said.lower()
    if "chdir" in text or "working directory" in text:
        reason = f"{said.rpartition(': ')[2]}".lower()
        return 127, CommandNotRunnableError(
            f"{_FAILED}: chdir to cwd set in config.json failed: {reason}: unknown"
        )
    if "denied" in text or "not permitted" in text:  # the latter of a directory
        return 126, CommandNotRunnableError(
            f'{_FAILED}: exec: "{command}": permission denied: unknown'
        )
    if "not found" in text or "no such file" in text:
        where = (
            "no such file or directory" if "/" in command else "executable file not found in $PATH"
        )
        return 127, CommandNotRunnableError(f'{_FAILED}: exec: "{command}": {where}: unknown')
    return 126, InternalError(f"{_FAILED}: {said}: unknown")


async def _run_on_pipes(argv: list[str], one: Exec, client: ExecClient | None) -> int:
    argv = [*argv, one.spec.container]
    if client is None:
        silent = subprocess.DEVNULL
        child = subprocess.Popen(argv, stdin=silent, stdout=silent, stderr=silent)  # noqa: ASYNC220 - a vfork
        return await _code(child)
    own = one.owner
    with _pipe(own) as (inner, keys), _pipe(own) as (out, outer), _pipe(own) as (err, errer):
        has_stdin = one.spec.attach_stdin
        child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
            argv, stdin=inner if has_stdin else subprocess.DEVNULL, stdout=outer, stderr=errer
        )
        for file in (inner, outer, errer):
            file.close()
        widen(out.fileno())
        sources = {STDOUT: Source(out.fileno()), STDERR: Source(err.fileno())}
        async with TaskGroup() as tasks:
            inward = tasks.create_task(_carry_in(client, keys if has_stdin else None))
            outward = [
                tasks.create_task(_carry_out(client, STDOUT, sources[STDOUT])),
                tasks.create_task(_carry_out(client, STDERR, sources[STDERR], one.complaint)),
            ]
            code = await _code(child)
            for source in sources.values():
                source.end()
            await asyncio.wait(outward)
            inward.cancel()
    return code


@contextlib.contextmanager
def _pipe(owner: int) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """A pipe that belongs to a container's user, who may open it by `/dev/stdout` and its like."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", 0) as source, os.fdopen(writing, "wb", 0) as sink:
        os.fchown(reading, owner, -1)
        yield source, sink


async def _carry_out(
    client: ExecClient | None, kind: int, source: Source, complaint: Path | None = None
) -> None:
    """Carry output until its end; without a client it is read away, so that the command goes on.

    A first line that stands in crun's `complaint`, too, is crun's own: its client hears it in docker's words.
    """
    while data := await source.read():
        is_cruns = complaint is not None and await _is_complaint(data, complaint)
        complaint = None
        if client is not None and not is_cruns:
            await client.send(kind, data)


async def _is_complaint(data: bytes, log: Path) -> bool:
    """Whether crun said this: on a terminal in colour, with the time; it is written down a moment later."""
    if _NO_EXECUTABLE.fullmatch(data) is None:
        return False
    line = data.decode(errors="replace")
    for _ in range(_LOG_LOOKS):
        said = _read(log)
        if said:
            return said in line
        await asyncio.sleep(_LOOK_EVERY_S)
    return False


async def _carry_in(client: ExecClient, stdin: IO[bytes] | None) -> None:
    """Carry the client's bytes; its half-close closes the process's standard input."""
    sink = Sink(stdin.fileno()) if stdin is not None else None
    try:
        async for data in client.keys():
            if sink is not None:
                try:
                    await sink.write(data)
                except OSError:  # nobody reads it any more
                    sink = None
    finally:
        if stdin is not None:
            stdin.close()
    await client.left()


async def _code(child: subprocess.Popen[bytes]) -> int:
    code = await process.ended(child)
    return code if code >= 0 else 128 - code


async def _run_on_terminal(
    argv: list[str], one: Exec, scratch: Path, client: ExecClient | None
) -> int:
    name = f"tty-{one.spec.exec[32:40]}"
    (scratch / name).unlink(missing_ok=True)
    with (
        _directory(scratch) as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener,
    ):
        # By descriptor: the path itself is longer than the 107 bytes that a socket's address has.
        path = f"/proc/{os.getpid()}/fd/{folder}/{name}"
        listener.bind(path)
        listener.listen(1)
        listener.setblocking(False)
        with program_gate.closed(one.beside) if one.size else contextlib.nullcontext():
            child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
                [*argv, "--tty", "--console-socket", path, one.spec.container],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                terminal = await _receive_terminal(listener, child)
            finally:
                (scratch / name).unlink(missing_ok=True)
        if terminal is None:
            return await _code(child)
        try:
            one.terminal = terminal
            if one.size is not None:
                one.resize(*one.size)
            return await _carry_terminal(one, terminal, client, child)
        finally:
            one.terminal = None
            os.close(terminal)


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
    one: Exec, terminal: int, client: ExecClient | None, child: subprocess.Popen[bytes]
) -> int:
    source = Source(terminal)
    async with TaskGroup() as tasks:
        outward = tasks.create_task(_carry_out(client, STDOUT, source, one.complaint))
        inward = None
        if client is not None:
            typing = _type(terminal, client, is_wanted=one.spec.attach_stdin)
            inward = tasks.create_task(typing)
        code = await _code(child)
        source.end()
        await outward
        if inward is not None:
            inward.cancel()
    return code


async def _type(terminal: int, client: ExecClient, *, is_wanted: bool) -> None:
    """Type the client's keys; at its end of input, end-of-file. What is not wanted is read away."""
    sink = Sink(terminal)
    with contextlib.suppress(OSError):
        async for data in client.keys():
            if is_wanted:
                await sink.write(data)
        if is_wanted and not client.over.is_set():
            await sink.write(_END_OF_FILE)
    await client.left()
