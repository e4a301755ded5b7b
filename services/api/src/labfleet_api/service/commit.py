"""`docker commit`: a container's writable layer becomes an image of the store."""

import contextlib
from contextlib import AsyncExitStack

from fastapi import APIRouter, Request, Response

from labfleet_api.core import changes
from labfleet_api.core.commits import CommitBody, committed_config, container_config
from labfleet_api.core.status import state_of
from labfleet_api.service.exchange import last_line
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import answer, flag, read_body
from labfleet_api.service.image_transfer import target_of
from labfleet_api.service.shelf import Shelf
from labfleet_chassis import frames
from labfleet_chassis.data_port import ByteStream
from labfleet_chassis.tasks import TaskGroup, first_of
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import (
    InvalidRequestError,
    LabfleetError,
    UnavailableError,
)
from labfleet_proto.image_streams import AddImage, NewImage
from labfleet_proto.runtime import RECONCILE, Reconcile
from labfleet_proto.streams import ReadLayer

_CHUNK = 256 << 10
_TAR_END = bytes(1024)


def router(fleet: Fleet) -> APIRouter:
    """The route of commits."""
    routes = APIRouter()
    shelf = Shelf(fleet)

    @routes.post("/commit")
    async def commit(request: Request) -> Response:
        body = await read_body(request, CommitBody)
        asked = request.query_params
        text = asked.get("container", "")
        if not text:
            raise InvalidRequestError("container: no container was named")
        record = fleet.find(text)
        image = await shelf.resolve(record.image.image_id)
        inner = committed_config(record.spec, image.config, body)
        wish = AddImage(
            parent=record.image,
            config=changes.apply(inner, asked.getlist("changes")),
            target=target_of(asked.get("repo", ""), asked.get("tag", "")),
            author=asked.get("author", ""),
            comment=asked.get("comment", ""),
            created_by=" ".join(record.spec.argv),
            container=record.id,
            container_config=container_config(record),
        )
        is_live = state_of(record, fleet.seen(record)) in ("running", "paused")
        is_still = is_live and flag(request, "pause", default=True)
        made = await _carry(fleet, record, wish, is_still=is_still)
        if is_still:  # who looks next sees it go on
            with contextlib.suppress(LabfleetError):
                fleet.told(await fleet.ask(RECONCILE, Reconcile(record=record), record))
        about = {"name": record.name, "image": record.image.reference, "imageID": made.image_id}
        if made.name:
            about["imageRef"] = made.name
        await fleet.emit("container", "commit", record.id, {**record.spec.labels, **about})
        return answer({"Id": made.image_id}, 201)

    return routes


async def _carry(
    fleet: Fleet, record: ContainerRecord, wish: AddImage, *, is_still: bool
) -> NewImage:
    """Lead the layer from its host to the store. Raises LabfleetError; then no image is made.

    The host lets the container stand still while this stream is open, whatever becomes of this api.
    """
    layer = ReadLayer(container=record.id, is_still=is_still)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(fleet.store_stream(wish))
        host = await stack.enter_async_context(fleet.stream(record, layer))
        try:
            async with TaskGroup() as tasks:
                tasks.create_task(_copy(host, store))
                made = tasks.create_task(last_line(store))
        except ExceptionGroup as group:
            known = group.subgroup(LabfleetError)
            raise (first_of(known) if known is not None else first_of(group)) from None
        return NewImage.model_validate(made.result())


async def _copy(host: ByteStream, store: ByteStream) -> None:
    """Send the layer, and that it was whole: a tar that was cut has no end."""
    tail = b""
    while data := await host.read(_CHUNK):
        await frames.send(store, data)
        tail = (tail + data)[-len(_TAR_END) :]
    if tail != _TAR_END:
        raise UnavailableError("the host ended the container's layer too early")
    await frames.end(store)
