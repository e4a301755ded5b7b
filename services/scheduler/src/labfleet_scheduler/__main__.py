"""Wires the scheduler: a standby until it holds the leader's lease."""

import os
import secrets

from labfleet_chassis.service import Chassis, run_service
from labfleet_proto.buckets import LEADERS
from labfleet_proto.hosts import Lease
from labfleet_proto.ids import HostId
from labfleet_proto.placement import PLACE
from labfleet_scheduler.service.leadership import Leadership
from labfleet_scheduler.service.memory import Memory
from labfleet_scheduler.service.placing import Placer
from labfleet_scheduler.service.promises import Promises
from labfleet_scheduler.settings import Settings


async def run(chassis: Chassis, settings: Settings) -> None:
    """Stand by, then lead until told to stop."""
    memory = await Memory.open(chassis)
    me = Lease(host=HostId(f"{os.getpid()}"), epoch=1, boot_id=secrets.token_hex(8))
    leadership = Leadership(chassis, await chassis.bus.bucket(LEADERS), me)
    chassis.detail = "standby"
    await leadership.take()
    chassis.tasks.create_task(leadership.keep())
    await memory.catch_up()
    placer = Placer(chassis, memory, settings, leadership)
    await chassis.bus.serve(PLACE, placer.place)
    chassis.loop("promises", Promises(chassis, memory).keep)
    chassis.loop("measure", placer.measure)
    chassis.ready("leading")
    await chassis.stopping.wait()
    await leadership.give_up()


def main() -> None:
    """Entry point of `labfleet-scheduler`."""
    settings = Settings()
    run_service("scheduler", settings, lambda chassis: run(chassis, settings))


if __name__ == "__main__":
    main()
