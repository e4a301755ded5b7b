"""A refusal reaches who is still sending: the connection does not end under it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from labfleet_chassis import frames, logs
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.data_port import Accept, ByteStream, DataPort, StreamHandler, dial
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.ids import OPERATORS, HostId
from labfleet_proto.image_streams import LoadImages
from labfleet_proto.streams import Ticket

HOST, KEY = HostId("h1"), b"k" * 32
pytestmark = pytest.mark.timeout(30)


async def _serve(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
    await accept({})
    await frames.receive(stream)
    await frames.refuse(stream, InvalidRequestError("enough"))


@contextlib.asynccontextmanager
async def _called(serve: StreamHandler) -> AsyncIterator[ByteStream]:
    """The client's side of a connection that `serve` answers."""
    port = DataPort(serve, host=HOST, key=KEY, clock=SystemClock(), log=logs.get("test"))
    async with (
        port.listening("127.0.0.1", 0) as number,
        dial("127.0.0.1", number, LoadImages(), host=HOST, tenant=OPERATORS, key=KEY,
             clock=SystemClock()) as stream,
    ):  # fmt: skip
        yield stream


async def test_who_is_refused_while_he_sends_hears_why() -> None:
    async with _called(_serve) as stream:
        for _ in range(40):
            await frames.send(stream, bytes(1 << 20))
        with pytest.raises(InvalidRequestError, match="enough"):
            await frames.receive(stream)


async def test_who_never_stops_is_left_after_a_while() -> None:
    async with _called(_patient) as stream:
        with pytest.raises(InvalidRequestError, match="enough"):
            await frames.receive(stream)
        async with asyncio.timeout(10):
            while await stream.read():  # ends, though this side has not
                pass


async def _patient(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
    await accept({})
    await frames.refuse(stream, InvalidRequestError("enough"), 0.2)
