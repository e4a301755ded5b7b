"""A connection's socket in the hands of threads: large bytes pass it without the event loop and without copies.

What the loop does for each piece of a stream costs more processor time than the kernel's copying of it.
"""

import asyncio
import os
import select
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

_AT_ONCE = 32
_threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="lent-socket")
"""Threads of their own: those that all others share must not wait for a network."""


class LentSocket:
    """Reads and writes for one thread at a time; each waits so long at most, and then raises TimeoutError."""

    def __init__(self, number: int, received: bytes) -> None:
        self._link = socket.socket(fileno=os.dup(number))
        self._received = memoryview(received)
        """What the loop had read already."""

    def is_ready(self, limit_s: float) -> bool:
        """Wait until there is something to read, or the end."""
        return bool(self._received) or wait_for(self._link, select.POLLIN, limit_s)

    def receive_into(self, target: memoryview, limit_s: float) -> int:
        """Read what there is; 0 at the end. Raises TimeoutError, OSError."""
        if self._received:
            found, self._received = (
                self._received[: len(target)],
                self._received[len(target) :],
            )
            target[: len(found)] = found
            return len(found)
        while True:
            try:
                return self._link.recv_into(target)
            except BlockingIOError:
                self._require(select.POLLIN, limit_s)

    def send(self, data: bytes, limit_s: float, *, is_head: bool = False) -> None:
        """Send all of it; a head goes along with what follows. Raises TimeoutError, OSError."""
        left = memoryview(data)
        while left:
            try:
                left = left[self._link.send(left, socket.MSG_MORE if is_head else 0) :]
            except BlockingIOError:
                self._require(select.POLLOUT, limit_s)

    def send_file(self, file: int, first: int, count: int, limit_s: float) -> None:
        """Send bytes of a file. Raises TimeoutError, OSError, EOFError when the file is too short."""
        while count > 0:
            try:
                sent = os.sendfile(self._link.fileno(), file, first, count)
            except BlockingIOError:
                self._require(select.POLLOUT, limit_s)
                continue
            if sent == 0:
                raise EOFError
            first, count = first + sent, count - sent

    def _require(self, event: int, limit_s: float) -> None:
        if not wait_for(self._link, event, limit_s):
            raise TimeoutError

    def shut(self) -> None:
        """End the connection: a thread that waits hears it."""
        shut(self._link)

    def close(self) -> None:
        """Give the socket back."""
        self._link.close()


def wait_for(link: socket.socket, event: int, limit_s: float) -> bool:
    """Wait in a thread for a socket that does not block."""
    ready = select.poll()
    ready.register(link, event)
    return bool(ready.poll(limit_s * 1000))


def shut(link: socket.socket) -> None:
    """End a connection in both directions; again is nothing."""
    try:
        link.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # it is down already


async def in_thread(work: Callable[[], T], abort: Callable[[], None]) -> T:
    """Let a thread do what waits for a network; a cancellation aborts it, and waits for its end."""
    doing = asyncio.get_running_loop().run_in_executor(_threads, work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        abort()
        await asyncio.wait({doing})
        doing.exception()  # was heard
        raise
