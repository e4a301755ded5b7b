"""Pipes and terminals of this host's programs, read and written without a thread.

A descriptor is watched only while someone waits for it: a slow reader of what comes from it costs nothing.
"""

import asyncio
import contextlib
import fcntl
import os

_READ = 1 << 18
_PIPE = 1 << 20
_QUIET_S = 2.0
"""How long output may still be awaited once its program has ended: others may hold its pipe (docker's limit)."""


def widen(fd: int) -> None:
    """Let a pipe hold a mebibyte: fewer turns for a long stream. A terminal stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE)


class Source:
    """Output of a program."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._is_over = False
        self._poke = asyncio.Event()
        os.set_blocking(fd, False)

    def end(self) -> None:
        """The program has ended: what is still to come comes soon."""
        self._is_over = True
        self._poke.set()

    async def read(self) -> bytes:
        """Return output, or nothing at its end: closed by all who held it, or quiet after the program's end."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self._fd, _READ)
            except BlockingIOError:
                self._poke.clear()
            except OSError:  # the other side of a terminal is closed (EIO)
                return b""
            loop.add_reader(self._fd, self._poke.set)
            try:
                async with asyncio.timeout(_QUIET_S if self._is_over else None):
                    await self._poke.wait()
            except TimeoutError:
                return b""
            finally:
                loop.remove_reader(self._fd)


class Sink:
    """Input of a program."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """Write all, waiting while the program is slow. Raises OSError when nobody reads any more."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:
                ready = asyncio.Event()
                loop.add_writer(self._fd, ready.set)
                try:
                    await ready.wait()
                finally:
                    loop.remove_writer(self._fd)
