"""The adapters of this host, and a pool of namespaces that are ready before they are asked for."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from labfleet_network.adapters.links import Links
from labfleet_network.adapters.namespaces import Namespaces
from labfleet_network.adapters.nft import Nft
from labfleet_network.settings import Settings

T = TypeVar("T")

_IDLE_S = 0.2
"""The pool is filled again when so long has passed since the first of it was taken."""


class Kernel:
    """What the network service of a host acts through."""

    def __init__(self, settings: Settings) -> None:
        self.namespaces = Namespaces(settings.run_dir)
        self.links = Links()
        self.nft = Nft()
        self._pool_size = settings.pool_size
        self._ready: list[str] = []
        self._taken = asyncio.Event()

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run in the thread that may enter namespaces."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.namespaces.thread, work, *args)

    async def take_namespace(self, name: str) -> None:
        """Give a namespace to a container: a ready one, or a new one. An older one of it goes."""
        if self.namespaces.path(name) is not None:
            await self.in_thread(self.namespaces.remove, name)
        token = self._ready.pop() if self._ready else await self.in_thread(self.namespaces.make)
        self._taken.set()
        self.namespaces.give(token, name)

    async def fill_pool(self) -> None:
        """Keep some namespaces ready, for ever."""
        while True:
            self._taken.clear()
            while len(self._ready) < self._pool_size:
                self._ready.append(await self.in_thread(self.namespaces.make))
            await self._taken.wait()
            await asyncio.sleep(_IDLE_S)

    def close(self) -> None:
        """Let go; what was made stays.

        The netlink socket goes with the process: closed under a call of another thread, it would
        leave that call waiting for ever, and the process with it.
        """
        self.namespaces.close()
