"""Ways to the files of a container, running or not.

Of a running one the view is a descriptor, which holds nothing up. One that does not run is mounted for
as long as the view is open; meanwhile it can neither start nor be removed, so whoever reads or writes
through a view must not stand still.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from labfleet_runtime_agent.adapters import volume_binds
from labfleet_runtime_agent.adapters.archive import RootView
from labfleet_runtime_agent.adapters.writable_layer import WritableLayer
from labfleet_runtime_agent.service.launch import Launch, open_view
from labfleet_runtime_agent.service.live import Live


@contextlib.asynccontextmanager
async def files(live: Live) -> AsyncIterator[RootView]:
    """Files as the container sees them, with those of its volumes."""
    async with _view(live, with_volumes=True) as view:
        yield view


@contextlib.asynccontextmanager
async def root(live: Live) -> AsyncIterator[RootView]:
    """The root file system alone, without what is mounted on it."""
    async with _view(live, with_volumes=False) as view:
        yield view


@contextlib.asynccontextmanager
async def _view(live: Live, *, with_volumes: bool) -> AsyncIterator[RootView]:
    snapshots, container = live.tools.files.snapshots, live.record.id
    base = await live.state.uid_base()
    userns = await asyncio.to_thread(snapshots.userns, base)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(live.files)
        if live.init is not None and live.is_running:
            inside = Path(f"/proc/{live.init.pid}/root")
            path = inside if with_volumes else snapshots.root_of(container)
            with open_view(live.record, path, userns) as view:
                await stack.aclose()  # the descriptor holds the files
                yield view
            return
        layers = await live.tools.files.layers.ensure(live.record.image)
        path = await snapshots.prepare(container, layers, base)
        stack.push_async_callback(snapshots.unmount, container)
        if with_volumes:
            sources = await Launch(live.tools, live.record).attach_volumes(base, path)
            await asyncio.to_thread(volume_binds.bind_all, path, sources, base)
        yield stack.enter_context(open_view(live.record, path, userns))


async def writable_layer(live: Live) -> WritableLayer:
    """Where the container's changes are; a path that is not there yet when it never ran."""
    files = live.tools.files
    layers = await files.layers.ensure(live.record.image)
    base = await live.state.uid_base()
    return WritableLayer(files.snapshots.upper_of(live.record.id), layers, base)
