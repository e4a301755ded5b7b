"""A refusal reaches who is still sending: the connection does not end under it."""

import asyncio

import pytest

from labfleet_chassis import frames, logs
from labfleet_chassis.clock import SystemClock
from labfleet_chassis.data_port import Accept, ByteStream, DataPort, dial
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


async def test_who_is_refused_while_he_sends_hears_why() -> None:
    port = DataPort(_serve, host=HOST, key=KEY, clock=SystemClock(), log=logs.get("test"))
    async with (
        port.listening("127.0.0.1", 0) as number,
        dial("127.0.0.1", number, LoadImages(), host=HOST, tenant=OPERATORS, key=KEY,
             clock=SystemClock()) as stream,
    ):  # fmt: skip
        for _ in range(40):
            await frames.send(stream, bytes(1 << 20))
        with pytest.raises(InvalidRequestError, match="enough"):
            await frames.receive(stream)


async def test_who_never_stops_is_left_after_a_while() -> None:
    port = DataPort(_patient, host=HOST, key=KEY, clock=SystemClock(), log=logs.get("test"))
    async with (
        port.listening("127.0.0.1", 0) as number,
        dial("127.0.0.1", number, LoadImages(), host=HOST, tenant=OPERATORS, key=KEY,
             clock=SystemClock()) as stream,
    ):  # fmt: skip
        with pytest.raises(InvalidRequestError, match="enough"):
            await frames.receive(stream)
        async with asyncio.timeout(10):
            while await stream.read():  # ends, though this side has not
                pass


async def _patient(_ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
    await accept({})
    await frames.refuse(stream, InvalidRequestError("enough"), 0.2)
