"""Replies of jobs by id, so that a job which arrives again is not done again.

A sender that hears nothing sends the same job once more: its message or the reply was lost, or the
work takes long. The second message gets the reply of the first.
"""

import asyncio
from collections import OrderedDict
from typing import Any

from labfleet_proto.ids import JobId
from labfleet_proto.jobs import JobReply

_KEPT_S = 60.0
_MOST = 20_000


class Answers:
    """The replies of the last minute; the oldest go first when there are 20,000."""

    def __init__(self) -> None:
        self._known: OrderedDict[JobId, tuple[float, asyncio.Future[JobReply[Any]]]] = OrderedDict()

    def of(self, job: JobId, now_s: float) -> tuple[asyncio.Future[JobReply[Any]], bool]:
        """Return the future reply of a job, and whether the caller has to bring it about."""
        known = self._known.get(job)
        if known is not None:
            return known[1], False
        self._forget(now_s)
        reply: asyncio.Future[JobReply[Any]] = asyncio.get_running_loop().create_future()
        self._known[job] = (now_s, reply)
        return reply, True

    def _forget(self, now_s: float) -> None:
        while self._known:
            job, (taken_s, reply) = next(iter(self._known.items()))
            is_old = now_s - taken_s > _KEPT_S and reply.done()
            if not is_old and len(self._known) < _MOST:
                return
            del self._known[job]
