"""Children of the agent that handle a container's files: Python programs of this room.

What they read or write goes through pipes; the last line on standard error is their verdict, JSON:
`{}` or `{"error": ..., "code": ...}`. They end with whoever asked for them.
"""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from labfleet_proto.errors import InternalError
from labfleet_proto.problem import Problem

_BUFFER = 1 << 20


@contextlib.asynccontextmanager
async def child(
    module: str, argv: Sequence[str], fds: Sequence[int] = ()
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run `python -m labfleet_runtime_agent.adapters.<module> argv...`; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"labfleet_runtime_agent.adapters.{module}",
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        pass_fds=tuple(fds),
        limit=_BUFFER,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


async def verdict(process: asyncio.subprocess.Process) -> dict[str, Any]:
    """Wait for a child's last word. Raises the LabfleetError that it names."""
    if process.stderr is None:
        raise InternalError("child without standard error")
    said = (await process.stderr.read()).decode(errors="replace").strip()
    await process.wait()
    try:
        answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    except (ValueError, IndexError) as exc:
        raise InternalError(f"child failed: {said[-500:]}") from exc
    if "error" in answer:
        raise Problem(code=answer["code"], message=answer["error"]).to_error()
    return answer
