"""The adapters of this host, and a pool of namespaces that are ready before they are asked for."""

import asyncio
import os
from collections.abc import Callable
from typing import TypeVar

from labfleet_network.adapters.links import Links
from labfleet_network.adapters.namespaces import Namespaces
from labfleet_network.adapters.nft import Nft
from labfleet_network.adapters.owned import new_namespace
from labfleet_network.settings import Settings
from labfleet_proto.errors import InternalError
from labfleet_proto.jobs import Job
from labfleet_proto.message import Nothing
from labfleet_proto.networks import PrepareNamespaces, UserIds

T = TypeVar("T")


class Kernel:
    """What the network service of a host acts through."""

    def __init__(self, settings: Settings) -> None:
        self.namespaces = Namespaces(settings.run_dir)
        self.links = Links()
        self.nft = Nft()
        self._pool_size = settings.pool_size
        self._owners: tuple[UserIds, ...] = ()
        self._ready: dict[int, str] = {}
        """Tokens by the first user id of their owner."""
        self._moved = asyncio.Event()

    async def in_thread(self, work: Callable[..., T], *args: object) -> T:
        """Run in the thread that may enter namespaces."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.namespaces.thread, work, *args)

    async def take_namespace(self, name: str, owner: UserIds | None) -> None:
        """Give a namespace to a container: a ready one, or a new one. An older one of it goes.

        Raises InternalError.
        """
        if self.namespaces.path(name) is not None:
            await self.in_thread(self.namespaces.remove, name)
        token = self._ready.pop(owner.first, "") if owner is not None else ""
        if token:
            self.namespaces.give(token, name)
        else:  # given in the same step, so that a start that is given up leaves none to nobody
            await asyncio.to_thread(lambda: self.namespaces.give(self._make(owner), name))

    def _make(self, owner: UserIds | None) -> str:
        """Make a namespace. Not for the thread of namespaces: a new process would keep it waiting."""
        if owner is None:
            return self.namespaces.thread.submit(self.namespaces.make).result()
        try:
            namespace = new_namespace(owner)
        except OSError as exc:
            raise InternalError(f"cannot make a network namespace: {exc}") from exc
        try:
            return self.namespaces.thread.submit(self.namespaces.keep, namespace).result()
        finally:
            os.close(namespace)

    async def prepare_namespaces(self, _job: Job, args: PrepareNamespaces) -> Nothing:
        """Serve `prepare_namespaces`: the pool is filled beside. Repeating is nothing."""
        self._owners = args.owners[: self._pool_size]
        self._moved.set()
        return Nothing()

    async def fill_pool(self) -> None:
        """Keep a namespace ready for each owner that was announced, for ever.

        Of the others the newest stay: whose ids are taken is about to start, and announced no more.
        """
        while True:
            self._moved.clear()
            firsts = {owner.first for owner in self._owners}
            others = [first for first in self._ready if first not in firsts]
            for first in others[: -self._pool_size]:
                if token := self._ready.pop(first, ""):  # else it was taken meanwhile
                    await self.in_thread(self.namespaces.drop, token)
            for owner in self._owners:
                if owner.first not in self._ready and not self._moved.is_set():
                    await asyncio.to_thread(self._stock, owner)
            await self._moved.wait()

    def _stock(self, owner: UserIds) -> None:
        self._ready[owner.first] = self._make(owner)

    def close(self) -> None:
        """Let go; what was made stays.

        The netlink socket goes with the process: closed under a call of another thread, it would
        leave that call waiting for ever, and the process with it.
        """
        self.namespaces.close()
