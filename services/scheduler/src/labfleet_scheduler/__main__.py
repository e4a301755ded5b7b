"""Wires the scheduler: a standby until it holds the leader's lease."""

import asyncio
import os
import secrets

from labfleet_chassis.service import Chassis, run_service
from labfleet_chassis.store import Bucket, ExistsError
from labfleet_proto.buckets import LEADERS
from labfleet_proto.errors import StaleError, UnavailableError
from labfleet_proto.hosts import Lease
from labfleet_proto.ids import HostId
from labfleet_scheduler import metrics
from labfleet_scheduler.service import Memory, serve
from labfleet_scheduler.settings import Settings

_KEY = "scheduler"
_RENEW_EVERY_S = 1.5


async def lead(bucket: Bucket[Lease], me: Lease) -> int:
    """Wait until nobody else leads, and take over; return the lease's revision."""
    while True:
        try:
            return await bucket.create(_KEY, me)
        except (ExistsError, UnavailableError):
            await asyncio.sleep(_RENEW_EVERY_S / 3)


async def keep(chassis: Chassis, bucket: Bucket[Lease], me: Lease, revision: int) -> None:
    """Renew until the lease is lost, then end the service: the supervisor starts a standby."""
    renewed_s = chassis.clock.monotonic_s()
    while True:
        await asyncio.sleep(_RENEW_EVERY_S)
        try:
            revision = await bucket.update(_KEY, me, revision)
            renewed_s = chassis.clock.monotonic_s()
        except StaleError:
            break
        except UnavailableError as exc:
            # While the bus is away nobody can take over: deciding goes on being safe, since every
            # write is a create or a compare-and-set on that same bus.
            chassis.log.warning("leader.waits", error=exc.message)
            if chassis.clock.monotonic_s() - renewed_s > LEADERS.ttl_s:
                break
    chassis.log.warning("leader.lost")
    chassis.stopping.set()


async def run(chassis: Chassis, settings: Settings) -> None:
    """Stand by, then lead until told to stop."""
    memory = await Memory.open(chassis)
    bucket = await chassis.bus.bucket(LEADERS)
    me = Lease(host=HostId(f"{os.getpid()}"), epoch=1, boot_id=secrets.token_hex(8))
    metrics.IS_LEADER.set(0)
    chassis.detail = "standby"
    revision = await lead(bucket, me)
    metrics.IS_LEADER.set(1)
    chassis.tasks.create_task(keep(chassis, bucket, me, revision))
    await serve(chassis, memory, settings)
    chassis.ready("leading")
    await chassis.stopping.wait()
    try:
        await bucket.delete(_KEY)
    except (StaleError, UnavailableError) as exc:
        chassis.log.warning("leader.kept", error=exc.message)


def main() -> None:
    """Entry point of `labfleet-scheduler`."""
    settings = Settings()
    run_service("scheduler", settings, lambda chassis: run(chassis, settings))


if __name__ == "__main__":
    main()
