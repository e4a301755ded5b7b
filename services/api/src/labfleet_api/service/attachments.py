"""A client's way to a container's streams, which outlives its host's agent.

The host says now and then where in the container's log the output stands; the bytes since are counted here. When the
stream is cut, it is opened again there: the client sees nothing twice and misses nothing. Input goes on where all of it
is known to have arrived and the container's own is still open; else the stream ends.
"""

import asyncio
import contextlib
from contextlib import AsyncExitStack
from typing import Self

from labfleet_api.core.stream_frames import frame
from labfleet_api.service.fleet import Fleet
from labfleet_chassis import output_blocks
from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.input_frames import InputWriter
from labfleet_chassis.output_blocks import Kind
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import LabfleetError, TransientError
from labfleet_proto.streams import AttachContainer, LogPosition

_RETRY_S = 0.25
_GIVE_UP_S = 120.0


class Attached:
    """The host's side of an attached client, as `splice` needs it."""

    def __init__(self, fleet: Fleet, record: ContainerRecord, wish: AttachContainer) -> None:
        self._fleet = fleet
        self._record = record
        self._wish = wish.model_copy(update={"is_in_blocks": True})
        self._is_framed = wish.is_framed and not record.spec.is_tty
        self._is_stdin_kept = record.spec.is_tty or not record.spec.stdin_once
        self._stack = AsyncExitStack()
        self._host: ByteStream | None = None
        self._is_there = asyncio.Event()
        self._position: LogPosition | None = None
        self._had = {Kind.STDOUT: 0, Kind.STDERR: 0}
        self._sent = self._typed = 0
        self._has_input_ended = False
        self._is_over = False

    async def __aenter__(self) -> Self:
        """Open the stream. Raises LabfleetError."""
        await self._open(self._wish)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it."""
        await self._stack.aclose()

    async def _open(self, wish: AttachContainer) -> None:
        self._host = await self._stack.enter_async_context(self._fleet.stream(self._record, wish))
        if position := self._host.detail.get("position"):
            self._position = LogPosition.model_validate(position)
        if self._has_input_ended:
            InputWriter(self._host).write_eof()
        self._is_there.set()

    # -- output

    async def read(self, most: int = 0) -> bytes:  # noqa: ARG002 - a block is as long as it is
        """Return output, none at its end."""
        while not self._is_over and self._host is not None:
            try:
                kind, data = await output_blocks.read_block(self._host)
            except ConnectionError:
                self._is_over = not await self._resume()
                continue
            match kind:
                case Kind.STDOUT | Kind.STDERR:
                    self._had[kind] += len(data)
                    return frame(kind, data) if self._is_framed else data
                case Kind.PLAIN:
                    return data
                case Kind.POSITION:
                    self._position = LogPosition.model_validate_json(data)
                    self._had = dict.fromkeys(self._had, 0)
                case Kind.TYPED:
                    self._typed += int.from_bytes(data)
                case Kind.END:
                    self._is_over = True
        return b""

    def _may_resume(self) -> bool:
        if self._position is None:
            return False
        is_stdin_open = self._is_stdin_kept or self._position.after_run is not None
        is_input_whole = self._sent == self._typed and is_stdin_open
        has_no_input = not self._wish.with_stdin or self._has_input_ended
        return has_no_input or is_input_whole

    async def _resume(self) -> bool:
        """Open the stream again where it was cut; False if that cannot be, or the host stays away."""
        self._is_there.clear()
        await self._stack.aclose()
        if not self._may_resume():
            return False
        changes = {
            "resume": self._position,
            "skip_stdout": self._had[Kind.STDOUT],
            "skip_stderr": self._had[Kind.STDERR],
            "with_stdin": self._wish.with_stdin and not self._has_input_ended,
            "with_logs": False,
        }
        end_s = self._fleet.clock.monotonic_s() + _GIVE_UP_S
        while self._fleet.clock.monotonic_s() < end_s:
            await asyncio.sleep(_RETRY_S)
            try:
                await self._open(self._wish.model_copy(update=changes))
            except TransientError:
                continue  # the host is on its way back
            except LabfleetError:
                return False  # the container is gone
            return True
        return False

    # -- input

    async def write(self, data: bytes) -> None:
        """Send input and wait while the host is slow, or away."""
        await self._is_there.wait()
        if self._host is None:
            return
        self._sent += len(data)
        with contextlib.suppress(ConnectionError):  # it was cut: who reads finds that out
            await InputWriter(self._host).write(data)

    def write_eof(self) -> None:
        """End the input; the output goes on."""
        self._has_input_ended = True
        if self._host is not None and self._is_there.is_set():
            InputWriter(self._host).write_eof()
