"""Requests that outlive the credential by which they came: they are cut when it is revoked or expires."""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from labfleet_api.core.access import UnauthorizedError
from labfleet_api.core.problems import status_of
from labfleet_api.service.http import problem
from labfleet_chassis.credentials import Credentials
from labfleet_proto.tenants import Identity

_NS_PER_S = 1_000_000_000
_GONE = "the credential was revoked or has expired"


class Revocation:
    """Watches the credentials of requests that are being served."""

    def __init__(self, credentials: Credentials) -> None:
        self._clock = credentials.clock
        self._open: dict[asyncio.Timeout, Callable[[], bool]] = {}
        for mirror in (credentials.tenants, credentials.tokens, credentials.certificates):
            mirror.listen(self._look)

    def _look(self, _key: str, _entry: Any) -> None:
        """Cut what has no credential any more; called at every change of one."""
        now_s = asyncio.get_running_loop().time()
        for limit, is_valid in list(self._open.items()):
            if not is_valid():
                del self._open[limit]
                limit.reschedule(now_s)

    async def serve(
        self,
        app: ASGIApp,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        caller: Identity,
        is_valid: Callable[[], bool],
    ) -> None:
        """Serve a request for as long as its credential is good.

        What has not been answered by then is a 401; an answer that has begun is cut.
        """
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        limit = asyncio.timeout(self._left_s(caller))
        try:
            async with limit:
                self._open[limit] = is_valid
                try:
                    await app(scope, receive, watched)
                finally:
                    self._open.pop(limit, None)
        except TimeoutError:
            if not limit.expired():
                raise
            if not has_begun:
                error = UnauthorizedError(_GONE)
                await problem(status_of(error), error.message)(scope, receive, send)

    def _left_s(self, caller: Identity) -> float | None:
        if not caller.expires_at_ns:
            return None
        return max(caller.expires_at_ns - self._clock.now_ns(), 0) / _NS_PER_S
