"""Listening sockets that hold published ports, so that other programs see them as taken.

nftables leads the traffic away before it reaches them.
"""

import contextlib
import errno
import socket

from labfleet_proto.errors import PortInUseError
from labfleet_proto.networks import PublishedPort

Key = tuple[str, str, int]


def key_of(port: PublishedPort) -> Key:
    """Protocol, host address and host port."""
    return port.protocol, port.host_address or "0.0.0.0", port.host_port  # noqa: S104 - docker's default


class Holders:
    """The sockets of this namespace."""

    def __init__(self) -> None:
        self._sockets: dict[Key, socket.socket] = {}

    def hold(self, port: PublishedPort) -> None:
        """Bind the port. Raises PortInUseError with docker's words."""
        key = key_of(port)
        protocol, address, number = key
        if key in self._sockets:
            raise PortInUseError(
                f"driver failed programming external connectivity: Bind for {address}:{number} failed: "
                "port is already allocated"
            )
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        made = socket.socket(socket.AF_INET, kind)
        try:
            if protocol == "tcp":
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((address, number))
            if protocol == "tcp":
                made.listen(1)
        except OSError as exc:
            made.close()
            reason = "address already in use" if exc.errno == errno.EADDRINUSE else exc.strerror
            raise PortInUseError(
                "driver failed programming external connectivity: failed to bind host port for "
                f"{address}:{number}/{protocol}: {reason}"
            ) from exc
        self._sockets[key] = made

    def let_go(self, port: PublishedPort) -> None:
        """Free the port; unknown is success."""
        held = self._sockets.pop(key_of(port), None)
        if held is not None:
            with contextlib.suppress(OSError):
                held.close()

    def held(self) -> set[Key]:
        """All held ports."""
        return set(self._sockets)
