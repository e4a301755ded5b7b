"""Blobs that hosts keep of layers, read through their data ports (`ReadBlob`)."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from labfleet_chassis import pieces
from labfleet_chassis.clock import Clock
from labfleet_chassis.data_port import dial
from labfleet_chassis.store import Bucket
from labfleet_proto.errors import UnavailableError
from labfleet_proto.hosts import HostRecord, Lease
from labfleet_proto.ids import OPERATORS, HostId
from labfleet_proto.layers import ReadBlob


class HostBusyError(Exception):
    """It serves as many as it may; it may have room in a moment."""


@dataclass(frozen=True)
class HostBlobs:
    """All that is to be known to call a host."""

    hosts: Bucket[HostRecord]
    leases: Bucket[Lease]
    key: bytes
    """Signs tickets."""
    clock: Clock
    silence_s: float
    """A host that says nothing for so long is given up."""

    @contextlib.asynccontextmanager
    async def opened(
        self, host: HostId, request: ReadBlob, size: int
    ) -> AsyncIterator[pieces.Incoming]:
        """A blob of `size` bytes from `request.first` on; whether the bytes are right, nobody has looked.

        Raises UnavailableError, HostBusyError, NotFoundError.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self.silence_s):
                    record = await self.hosts.get(host)
                    if record is None or await self.leases.get(host) is None:
                        raise UnavailableError(f"host {host} gives no sign of life")
                    stream = await stack.enter_async_context(
                        dial(
                            record.value.address,
                            record.value.data_port,
                            request,
                            host=host,
                            tenant=OPERATORS,
                            key=self.key,
                            clock=self.clock,
                        )
                    )
            except TimeoutError as exc:
                raise UnavailableError(f"host {host} does not answer") from exc
            except (OSError, ValueError) as exc:
                raise UnavailableError(f"host {host}: {exc}") from exc
            if stream.detail.get("is_busy"):
                raise HostBusyError(f"host {host} is busy")
            if stream.detail.get("size") != size:
                raise UnavailableError(f"host {host} has another size of layer {request.digest}")
            try:
                link = await stack.enter_async_context(stream.lend())
            except OSError as exc:
                raise UnavailableError(f"host {host}: {exc}") from exc
            yield pieces.Incoming(link, size - request.first, self.silence_s)
