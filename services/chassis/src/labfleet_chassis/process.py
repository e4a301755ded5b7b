"""Run a program to its end, with a limit."""

import asyncio
import contextlib
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
    child = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        pass_fds=tuple(pass_fds),
    )
    try:
        async with asyncio.timeout(timeout_s):
            (out, err), _ = await asyncio.gather(child.communicate(), _feed(child, stdin))
    finally:
        if child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            await child.wait()
    done = Completed(words, child.returncode or 0, out, err)
    if check and done.exit_code != 0:
        raise ProgramFailedError(done)
    return done


async def _feed(child: asyncio.subprocess.Process, data: bytes) -> None:
    """Write all input; a child that ends before it has read it is its own business."""
    if child.stdin is None:
        return
    with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's word for a closed pipe
        child.stdin.write(data)
        await child.stdin.drain()
    child.stdin.close()
