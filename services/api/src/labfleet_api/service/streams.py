"""Routes of a container's standard streams: attach and logs."""

from fastapi import APIRouter, Request, Response

from labfleet_api.core.times import parse_time
from labfleet_api.service.fleet import Fleet
from labfleet_api.service.http import flag
from labfleet_api.service.relays import hijacked, stream_type, streamed
from labfleet_proto.errors import InvalidRequestError
from labfleet_proto.runtime import AttachContainer, ReadLogs


def router(fleet: Fleet) -> APIRouter:
    """Routes of standard streams."""
    routes = APIRouter()

    @routes.post("/containers/{text}/attach")
    async def attach(text: str, request: Request) -> Response:
        record = fleet.find(text)
        wish = AttachContainer(
            container=record.id,
            with_stdin=flag(request, "stdin") and record.spec.open_stdin,
            with_stdout=flag(request, "stdout"),
            with_stderr=flag(request, "stderr"),
            with_logs=flag(request, "logs"),
            is_live=flag(request, "stream"),
            detach_keys=request.query_params.get("detachKeys", ""),
        )
        return await hijacked(fleet, request, record, wish, is_tty=record.spec.is_tty)

    @routes.get("/containers/{text}/logs")
    async def logs(text: str, request: Request) -> Response:
        record = fleet.find(text)
        asked = request.query_params
        if not (flag(request, "stdout") or flag(request, "stderr")):
            raise InvalidRequestError("Bad parameters: you must choose at least one stream")
        wish = ReadLogs(
            container=record.id,
            with_stdout=flag(request, "stdout"),
            with_stderr=flag(request, "stderr"),
            follow=flag(request, "follow"),
            since_ns=parse_time(asked.get("since", ""), "since"),
            until_ns=parse_time(asked.get("until", ""), "until"),
            tail=_tail(asked.get("tail", "all")),
            with_timestamps=flag(request, "timestamps"),
        )
        kind = stream_type(request, is_tty=record.spec.is_tty)
        return await streamed(fleet, record, wish, {"Content-Type": kind})

    return routes


def _tail(text: str) -> int | None:
    if text in ("", "all") or text.startswith("-"):
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidRequestError(f"tail: {text!r} is neither a number nor all")
    return int(text)
