"""Who is the active scheduler: a lease in the fleet's memory that expires after five seconds."""

import asyncio

from labfleet_chassis.service import Chassis
from labfleet_chassis.store import Bucket, ExistsError
from labfleet_proto.buckets import LEADERS
from labfleet_proto.errors import HandedOnError, StaleError, UnavailableError
from labfleet_proto.hosts import Lease
from labfleet_scheduler import metrics

_KEY = "scheduler"
_RENEW_EVERY_S = 1.5
_ANSWER_S = 2.0
"""A renewal that takes longer is asked for again: its message was lost."""
_MARGIN_S = 1.0
"""Of the lease's time, so that a decision ends before a successor's can begin."""


class Leadership:
    """The lease of this process."""

    def __init__(self, chassis: Chassis, bucket: Bucket[Lease], me: Lease) -> None:
        self._chassis = chassis
        self._bucket = bucket
        self._me = me
        self._revision = 0
        self._renewed_s = float("-inf")
        self._is_lost = False
        self._moved = asyncio.Event()
        """The lease was renewed or lost."""

    async def take(self) -> None:
        """Stand by until nobody else leads, and take over."""
        metrics.IS_LEADER.set(0)
        while True:
            asked_s = self._chassis.clock.monotonic_s()
            try:
                self._revision = await self._bucket.create(_KEY, self._me)
                break
            except (ExistsError, UnavailableError):
                await asyncio.sleep(_RENEW_EVERY_S / 3)
        self._renewed_s = asked_s
        metrics.IS_LEADER.set(1)

    async def confirm(self) -> None:
        """Return once nobody else can lead yet, counted from the sending of the last renewal.

        Raises HandedOnError when the lease is lost.
        """
        while self._held_s() >= LEADERS.ttl_s - _MARGIN_S:
            if self._is_lost:
                raise HandedOnError("this scheduler leads no more")
            self._moved.clear()
            await self._moved.wait()

    def _held_s(self) -> float:
        return self._chassis.clock.monotonic_s() - self._renewed_s

    async def keep(self) -> None:
        """Renew until the lease is lost, then end the service: the supervisor starts a standby."""
        while True:
            await asyncio.sleep(_RENEW_EVERY_S)
            try:
                async with asyncio.timeout(_ANSWER_S):
                    await self._renew()
            except StaleError:
                break
            except (UnavailableError, TimeoutError) as exc:
                self._chassis.log.warning("leader.waits", error=str(exc))
                if self._held_s() > LEADERS.ttl_s:
                    break
        self._chassis.log.warning("leader.lost")
        self._lose()
        self._chassis.stopping.set()

    async def _renew(self) -> None:
        asked_s = self._chassis.clock.monotonic_s()
        try:
            self._revision = await self._bucket.update(_KEY, self._me, self._revision)
        except StaleError:
            # A renewal whose answer was lost may have been stored.
            there = await self._bucket.get(_KEY)
            if there is None or there.value != self._me:
                raise
            self._revision = await self._bucket.update(_KEY, self._me, there.revision)
        self._renewed_s = asked_s
        self._moved.set()

    async def give_up(self) -> None:
        """Let a standby take over at once; a successor's lease is left alone."""
        self._lose()
        try:
            await self._bucket.delete(_KEY, self._revision)
        except (StaleError, UnavailableError) as exc:
            self._chassis.log.warning("leader.kept", error=exc.message)

    def _lose(self) -> None:
        self._renewed_s = float("-inf")
        self._is_lost = True
        self._moved.set()
