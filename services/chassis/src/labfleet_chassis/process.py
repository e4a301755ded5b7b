"""Programs: started without copying this process, their end awaited without a thread.

`subprocess.Popen` starts a program by vfork where no function has to run in the child. The fork of
the event loop's own `create_subprocess_exec` copies the page tables of the whole service: some
milliseconds, during which the loop stands still (`docs/adr/0006`).
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labfleet_proto.errors import InternalError


@dataclass(frozen=True)
class Completed:
    """A program that ended."""

    argv: tuple[str, ...]
    exit_code: int
    """Negative: killed by that signal."""
    stdout: bytes
    stderr: bytes


class ProgramFailedError(InternalError):
    """The program ended with a code other than 0."""

    code = "program_failed"

    def __init__(self, done: Completed) -> None:
        said = done.stderr.decode(errors="replace").strip() or "no message"
        super().__init__(f"{' '.join(done.argv)}: exit code {done.exit_code}: {said}")
        self.done = done


async def ended(child: subprocess.Popen[bytes]) -> int:
    """Wait for a program's end; return its exit code, negative if a signal killed it."""
    if child.poll() is None:
        loop = asyncio.get_running_loop()
        handle = os.pidfd_open(child.pid)
        over = asyncio.Event()
        loop.add_reader(handle, over.set)
        try:
            await over.wait()
        finally:
            loop.remove_reader(handle)
            os.close(handle)
    return child.wait()


async def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run `argv` without a shell and return what it printed.

    Raises:
        ProgramFailedError: exit code other than 0 while `check` is set.
        TimeoutError: not done in `timeout_s`; the program was killed.
    """
    words = tuple(str(word) for word in argv)
    with contextlib.ExitStack() as stack:
        # Files in memory instead of pipes: nothing to read or feed while the program runs.
        given, out, err = (
            stack.enter_context(os.fdopen(os.memfd_create(name), "w+b", buffering=0))
            for name in ("stdin", "stdout", "stderr")
        )
        if stdin:
            given.write(stdin)
            given.seek(0)
        child = subprocess.Popen(  # noqa: ASYNC220 - a vfork, far below a millisecond
            words,
            stdin=given if stdin else subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=env,
            pass_fds=tuple(pass_fds),
        )
        try:
            async with asyncio.timeout(timeout_s):
                code = await ended(child)
        finally:
            if child.returncode is None:
                child.kill()
                child.wait()
        out.seek(0)
        err.seek(0)
        done = Completed(words, code, out.read(), err.read())
    if check and done.exit_code != 0:
        raise ProgramFailedError(done)
    return done
