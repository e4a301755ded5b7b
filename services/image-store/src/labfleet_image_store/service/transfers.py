"""The image store's data port: save, load, import, commit."""

import asyncio
import json
import queue
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

from labfleet_chassis import frames
from labfleet_chassis.caller import acting_for
from labfleet_chassis.clock import Clock
from labfleet_chassis.data_port import Accept, ByteStream
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_image_store.adapters.bridge import Incoming, Loop, Outgoing
from labfleet_image_store.adapters.compression import inflated
from labfleet_image_store.adapters.layers import LayerFact
from labfleet_image_store.core import new_images
from labfleet_image_store.core.naming import rfc3339
from labfleet_image_store.core.pull_lines import Line
from labfleet_image_store.service import saving
from labfleet_image_store.service.events import Events
from labfleet_image_store.service.library import Library
from labfleet_image_store.service.loading import Loader
from labfleet_image_store.service.pulling import Puller
from labfleet_image_store.service.quotas import Room
from labfleet_image_store.service.shelf import Shelf
from labfleet_proto.errors import InternalError, InvalidRequestError, LabfleetError
from labfleet_proto.image_streams import (
    AddImage,
    LoadImages,
    NewImage,
    PullImage,
    SaveImages,
)
from labfleet_proto.streams import Ticket

_AT_ONCE = 4
"""Tars that are read or written side by side; the next one waits."""


class Transfers:
    """Serves streams of images."""

    def __init__(
        self, library: Library, puller: Puller, directory: Path, clock: Clock, events: Events
    ) -> None:
        self._library = library
        self._puller = puller
        self._layers = library.layers
        self._shelf = Shelf(library)
        self._loader = Loader(directory, library.layers, self._shelf)
        self._saver = saving.Saver(library)
        self._clock = clock
        self._events = events
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def serve(self, ticket: Ticket, stream: ByteStream, accept: Accept) -> None:
        """Serve one stream of the data port for its tenant."""
        request = ticket.request
        with acting_for(ticket.tenant):
            if isinstance(request, PullImage):  # waits for others, not for a thread
                await self._pull(request, stream, accept)
                return
            async with self._slots:
                match request:
                    case SaveImages():
                        await self._save(request, stream, accept)
                    case LoadImages():
                        await self._load(request, stream, accept)
                    case AddImage():
                        await self._add(request, stream, accept)
                    case _:
                        raise InvalidRequestError(f"the image store has no stream {request.op}")

    async def _save(self, request: SaveImages, stream: ByteStream, accept: Accept) -> None:
        chosen = saving.choose(self._library, request.names)
        await accept({})
        target = cast("IO[bytes]", Outgoing(Loop(stream)))
        try:
            await asyncio.to_thread(self._saver.write, chosen, target)
        except LabfleetError as exc:
            await frames.end(stream, exc)
            return
        for each in chosen:
            await self._events.tell("save", each.detail.pin.image_id, each.detail.pin.image_id)
        await frames.end(stream)

    async def _pull(self, request: PullImage, stream: ByteStream, accept: Accept) -> None:
        await accept({})
        turn = asyncio.Lock()

        async def tell(line: Line) -> None:
            async with turn:
                await _line(stream, line)

        try:
            await self._puller.pull(request, tell)
        except LabfleetError as exc:
            await frames.end(stream, exc)
            return
        await frames.end(stream)

    async def _load(self, request: LoadImages, stream: ByteStream, accept: Accept) -> None:
        await accept({})
        source = cast("IO[bytes]", Incoming(Loop(stream)))
        lines: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        try:
            async with TaskGroup() as tasks:
                work = tasks.create_task(self._loader.load(source, lines.put))
                while not work.done():
                    await asyncio.wait({work}, timeout=0.1)
                    await self._pass_on(stream, lines, is_quiet=request.is_quiet)
        except ExceptionGroup as group:
            await self._failed(stream, group)
            return
        for image_id, names in work.result():
            for line in [f"Loaded image: {name}\n" for name in names] or [
                f"Loaded image ID: {image_id}\n"
            ]:
                await _line(stream, {"stream": line})
            await self._events.tell("load", image_id, names[0] if names else image_id)
        await frames.end(stream)

    async def _pass_on(
        self, stream: ByteStream, lines: "queue.SimpleQueue[dict[str, Any]]", *, is_quiet: bool
    ) -> None:
        while not lines.empty():
            line = lines.get_nowait()
            if not is_quiet:
                await _line(stream, line)

    async def _add(self, request: AddImage, stream: ByteStream, accept: Accept) -> None:
        names = [self._shelf.name(request.target)] if request.target else []
        if names and names[0].digest is not None:
            raise InvalidRequestError("cannot import digest reference")
        parent = (
            self._library.catalogue.config_of(request.parent.image_id) if request.parent else None
        )
        await accept({})
        unnamed = self._shelf.unnamed
        incoming = cast("IO[bytes]", Incoming(Loop(stream)))
        try:
            *facts, layer = await asyncio.to_thread(
                self._stack, request, incoming, unnamed, self._shelf.quotas.room(unnamed)
            )
            created = rfc3339(self._clock.now_ns())
            config = new_images.config_of(request, parent, layer.diff_id, created)
            image_id = await self._shelf.put(config, [*facts, layer], names)
        except LabfleetError as exc:
            await frames.refuse(stream, exc)
            return
        name = names[0].familiar if names else ""
        action = "import" if request.parent is None and not request.container else "create"
        if action == "import":
            await self._events.tell(action, image_id, name or image_id)
        if name:
            await self._events.tell("tag", image_id, name)
        await _line(stream, NewImage(image_id=image_id, name=name).model_dump())
        await frames.end(stream)

    def _stack(
        self, request: AddImage, incoming: IO[bytes], unnamed: str, room: Room
    ) -> list[LayerFact]:
        """Facts of the parent's layers and of the new one."""
        below = request.parent.layers if request.parent is not None else ()
        facts = [self._layers.fact(layer.digest) for layer in below]
        made = self._layers.make(unnamed, inflated(incoming), check_size=room.check)
        self._shelf.quotas.received(unnamed, made.digest)
        return [*facts, made]

    async def _failed(self, stream: ByteStream, group: BaseExceptionGroup[Any]) -> None:
        failure = first_of(group)
        if isinstance(failure, ConnectionError):
            raise failure
        known = failure if isinstance(failure, LabfleetError) else InternalError(str(failure))
        await frames.refuse(stream, known)


async def _line(stream: ByteStream, document: Mapping[str, Any]) -> None:
    await frames.send(stream, json.dumps(document).encode() + b"\r\n")
