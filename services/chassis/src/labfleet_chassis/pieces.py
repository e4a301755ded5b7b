"""A blob on its way from a host to another or to the image store; the host may itself still be fetching it.

Wire form: four bytes of length (big endian) and so many bytes, again and again, until the blob's end. Length
0 means "I am alive and wait for more myself": silence is a peer that stalls, and is left at once.
"""

import struct
import time

from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.lent_socket import LentSocket
from labfleet_proto.errors import UnavailableError

_HEAD = struct.Struct("!I")
_MOST = 1 << 20
_BUFFER = 1 << 18
_PATIENCE = 10
"""So many times the limit of silence a peer may have nothing new and yet be alive."""
_STALL_S = 60.0
"""A peer that takes nothing for so long is gone."""


async def send(stream: ByteStream, data: bytes) -> None:
    """Send the next bytes, at most 1 MiB; none says that more is awaited. Raises ConnectionError."""
    await stream.write(_HEAD.pack(len(data)) + data)


def send_file(link: LentSocket, file: int, first: int, count: int) -> None:
    """Send the next bytes out of a file, in a thread.

    Raises ConnectionError when the peer is gone, UnavailableError for a file that is too short.
    """
    while count:
        size = min(count, _MOST)
        try:
            link.send(_HEAD.pack(size), _STALL_S, is_head=True)
            link.send_file(file, first, size, _STALL_S)
        except TimeoutError as exc:
            raise ConnectionAbortedError(f"the peer took nothing for {_STALL_S:g} s") from exc
        except EOFError as exc:
            raise UnavailableError("the blob's file is too short") from exc
        first, count = first + size, count - size


class Incoming:
    """The bytes that a host sends of a blob; its methods are for one thread, but for `abort`."""

    def __init__(self, link: LentSocket, left: int, silence_s: float) -> None:
        self._link = link
        self._left = left
        self._silence_s = silence_s
        self._moved_s = time.monotonic()
        self._piece = 0
        """Bytes that are left of the piece at hand."""
        self._buffer = memoryview(bytearray(_BUFFER))

    def is_ready(self, limit_s: float) -> bool:
        """Wait until something has come, or the end."""
        return not self._left or self._link.is_ready(limit_s)

    def take(self) -> memoryview:
        """Return the next bytes as they come; none at the blob's end.

        Raises UnavailableError when the peer ends too early, sends too much, or stalls.
        """
        while self._left and not self._piece:
            self._begin_piece()
        size = min(self._piece, _BUFFER)
        count = self._receive(self._buffer[:size]) if size else 0
        self._piece -= count
        self._left -= count
        self._moved_s = time.monotonic()
        return self._buffer[:count]

    def abort(self) -> None:
        """Let a `take` that waits fail at once."""
        self._link.shut()

    def _begin_piece(self) -> None:
        head = bytearray(_HEAD.size)
        count = 0
        while count < _HEAD.size:
            count += self._receive(memoryview(head)[count:])
        (self._piece,) = _HEAD.unpack(head)
        if self._piece > min(self._left, _MOST):
            raise UnavailableError(f"it sends {self._piece} bytes where {self._left} are left")
        is_alive = self._piece or time.monotonic() - self._moved_s <= self._silence_s * _PATIENCE
        if not is_alive:
            raise UnavailableError("it has waited too long itself")

    def _receive(self, target: memoryview) -> int:
        try:
            count = self._link.receive_into(target, self._silence_s)
        except TimeoutError as exc:
            raise UnavailableError(f"it stalls: nothing came in {self._silence_s:g} s") from exc
        except OSError as exc:
            raise UnavailableError(f"it went away with {self._left} bytes left") from exc
        if count == 0:
            raise UnavailableError(f"it went away with {self._left} bytes left")
        return count
