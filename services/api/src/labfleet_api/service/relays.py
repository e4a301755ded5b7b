"""Answers that are byte streams of a host, carried through."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from labfleet_api.adapters.hijack import Peer, splice, take_over
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import Taken, version_of
from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.input_frames import InputWriter
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.streams import StreamRequest

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"
_CHUNK = 256 << 10
_NAMES_FRAMES = (1, 42)
"""Since this version an answer says that its stream is multiplexed."""


def stream_type(request: Request, *, is_tty: bool) -> str:
    """Media type of a container's output for this client."""
    return RAW if is_tty or version_of(request) < _NAMES_FRAMES else MULTIPLEXED


async def hijacked(
    fleet: Fleet, request: Request, record: ContainerRecord, wish: StreamRequest, *, is_tty: bool
) -> Response:
    """Open the host's stream, then take the client's connection over and join both."""
    async with fleet.stream(record, wish) as host:
        await hijack_to(InputWriter(host), request, is_tty=is_tty)
    return Taken()


async def hijack_to(host: Peer, request: Request, *, is_tty: bool) -> None:
    """Take the client's connection over and join it to a host's stream, until either ends."""
    kind = stream_type(request, is_tty=is_tty) if request.headers.get("upgrade") else RAW
    client = await take_over(request, kind)
    await splice(client, host)


async def streamed(
    fleet: Fleet,
    record: ContainerRecord,
    wish: StreamRequest,
    headers: dict[str, str],
) -> Response:
    """Answer with what the host sends; errors before its first byte become the answer."""
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(fleet.stream(record, wish))
        return carried(host, stack.pop_all(), headers)


def carried(host: ByteStream, stack: AsyncExitStack, headers: dict[str, str]) -> Response:
    """Answer with what an open stream sends; `stack` closes it at the end."""

    async def body() -> AsyncIterator[bytes]:
        async with stack:
            while data := await host.read(_CHUNK):
                yield data

    return StreamingResponse(body(), headers=headers)
