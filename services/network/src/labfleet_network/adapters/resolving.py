"""Asking a resolver outside for a name that is none of ours."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import dns.message

_LIMIT_S = 3.0
_PORT = 53
_MOST_BYTES = 65535

Open = Callable[[int, int], Awaitable[socket.socket]]
"""Open a socket of a family and a type, in the namespace that the question leaves by."""


async def open_here(family: int, kind: int) -> socket.socket:
    """A socket in this process's own namespace."""
    return socket.socket(family, kind)


@dataclass(frozen=True)
class Resolvers:
    """Servers in the order in which they are asked, and from where."""

    servers: Sequence[str]
    open: Open = open_here


def of_host(path: Path = Path("/etc/resolv.conf")) -> list[str]:
    """IPv4 resolvers of this host."""
    try:
        words = [line.split() for line in path.read_text().splitlines()]
    except OSError:
        return []
    return [
        word[1] for word in words if len(word) > 1 and word[0] == "nameserver" and "." in word[1]
    ]


async def ask(
    query: dns.message.Message, server: str, opened: Open, *, is_datagram: bool
) -> dns.message.Message:
    """Ask one server; a datagram's answer may be cut, and says so.

    Raises OSError, TimeoutError, EOFError, dns.exception.DNSException.
    """
    family = socket.AF_INET6 if ip_address(server).version == 6 else socket.AF_INET
    kind = socket.SOCK_DGRAM if is_datagram else socket.SOCK_STREAM
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_LIMIT_S):
        with await opened(family, kind) as there:
            there.setblocking(False)
            await loop.sock_connect(there, (server, _PORT))
            wire = query.to_wire()
            if is_datagram:
                await loop.sock_sendall(there, wire)
                return await _answer(loop, there, query)
            await loop.sock_sendall(there, len(wire).to_bytes(2, "big") + wire)
            size = int.from_bytes(await _exactly(loop, there, 2), "big")
            return dns.message.from_wire(await _exactly(loop, there, size))


async def _answer(
    loop: asyncio.AbstractEventLoop, there: socket.socket, query: dns.message.Message
) -> dns.message.Message:
    """The datagram that answers; others are none of ours."""
    while True:
        said = dns.message.from_wire(await loop.sock_recv(there, _MOST_BYTES))
        if query.is_response(said):
            return said


async def _exactly(loop: asyncio.AbstractEventLoop, there: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        more = await loop.sock_recv(there, size - len(found))
        if not more:
            raise EOFError("the resolver has hung up")
        found += more
    return found
