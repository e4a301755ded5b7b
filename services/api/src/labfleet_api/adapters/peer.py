"""Who is at the other end of a connection, told to the application as a scope extension."""

import asyncio
import socket
from dataclasses import dataclass

EXTENSION = "labfleet.peer"
FINGERPRINT = "labfleet_fingerprint"
"""Name of a transport's extra info: hex SHA-256 of the client's verified certificate."""


@dataclass(frozen=True)
class Peer:
    """What the connection itself says of the client."""

    is_local: bool
    """Came through the local socket, which only root can open."""
    fingerprint: str | None = None


def peer_of(transport: asyncio.BaseTransport) -> Peer:
    """Describe the other end."""
    link = transport.get_extra_info("socket")
    is_local = link is not None and link.family == socket.AF_UNIX
    return Peer(is_local, transport.get_extra_info(FINGERPRINT))
