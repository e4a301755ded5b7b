"""Routes of a container's standard streams: attach and logs."""

import re

from fastapi import APIRouter, Request, Response

from labfleet_api.adapters.hijack import splice, take_over_with
from labfleet_api.adapters.websocket import WebSocket
from labfleet_api.core import detach_keys, log_config, websocket
from labfleet_api.core.activity import require_attachable
from labfleet_api.core.status import state_of
from labfleet_api.core.times import parse_time
from labfleet_api.service.attachments import Attached
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import Taken, flag
from labfleet_api.service.log_streams import followed
from labfleet_api.service.relays import hijack_to, stream_type
from labfleet_proto.containers import ContainerRecord
from labfleet_proto.errors import ConflictError, InvalidRequestError, NotImplementedYetError
from labfleet_proto.streams import AttachContainer, ReadLogs


def router(fleet: Fleet) -> APIRouter:
    """Routes of standard streams."""
    routes = APIRouter()

    def attachment(text: str, request: Request) -> tuple[ContainerRecord, AttachContainer]:
        keys = detach_keys.parse(request.query_params.get("detachKeys", ""))
        record = fleet.find(text)
        require_attachable(text, record, fleet.seen(record))
        wish = AttachContainer(
            container=record.id,
            with_stdin=flag(request, "stdin") and record.spec.open_stdin,
            with_stdout=flag(request, "stdout"),
            with_stderr=flag(request, "stderr"),
            with_logs=flag(request, "logs"),
            is_live=flag(request, "stream"),
            detach_keys=keys.hex(),
        )
        return record, wish

    @routes.post("/containers/{text}/attach")
    async def attach(text: str, request: Request) -> Response:
        record, wish = attachment(text, request)
        async with Attached(fleet, record, wish) as host:
            await hijack_to(host, request, is_tty=record.spec.is_tty)
        return Taken()

    @routes.get("/containers/{text}/attach/ws")
    async def attach_by_websocket(text: str, request: Request) -> Response:
        head = websocket.handshake(request.headers)
        record, wish = attachment(text, request)
        wish = wish.model_copy(update={"is_framed": False})  # a message is a piece of output
        async with Attached(fleet, record, wish) as host:
            client = WebSocket(await take_over_with(request, head))
            await splice(client, host)
        return Taken()

    @routes.get("/containers/{text}/logs")
    async def logs(text: str, request: Request) -> Response:
        record = fleet.find(text)
        asked = request.query_params
        if not (flag(request, "stdout") or flag(request, "stderr")):
            raise InvalidRequestError("Bad parameters: you must choose at least one stream")
        if record.spec.log.driver == "none":
            raise NotImplementedYetError("configured logging driver does not support reading")
        if state_of(record, fleet.seen(record)) == "removing":
            raise ConflictError(
                "can not get logs from container which is dead or marked for removal"
            )
        wish = ReadLogs(
            container=record.id,
            with_stdout=flag(request, "stdout"),
            with_stderr=flag(request, "stderr"),
            follow=flag(request, "follow"),
            since_ns=parse_time(asked.get("since", ""), "since"),
            until_ns=parse_time(asked.get("until", ""), "until"),
            tail=_tail(asked.get("tail", "all")),
            with_timestamps=flag(request, "timestamps"),
            details=log_config.details(record) if flag(request, "details") else None,
        )
        kind = stream_type(request, is_tty=record.spec.is_tty)
        return await followed(fleet, record, wish, kind)

    return routes


def _tail(text: str) -> int | None:
    """Number of last lines; None, which is all, also for what is no number, as docker has it."""
    is_number = re.fullmatch(r"[+]?[0-9]{1,18}", text) is not None
    return int(text) if is_number else None
