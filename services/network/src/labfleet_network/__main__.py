"""Wires the network service in one of its two roles."""

import asyncio

from labfleet_chassis.service import Chassis, run_service
from labfleet_network.adapters.nft import Nft
from labfleet_network.service.entry import EntryNetwork
from labfleet_network.service.host import HostNetwork
from labfleet_network.service.kernel import Kernel
from labfleet_network.service.memory import Lives, Memory
from labfleet_network.settings import Settings
from labfleet_proto import networks
from labfleet_proto.ids import HostId


async def run_host(chassis: Chassis, settings: Settings, host: HostId) -> None:
    """Run as the network of a host; interfaces stay when it ends."""
    memory = await Memory.open(chassis)
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    # In a thread: pyroute2 wants an event loop of its own, and uvloop knows no netlink.
    kernel = await asyncio.to_thread(Kernel, settings)
    network = HostNetwork(chassis, memory, kernel, settings)
    await network.prepare()
    bus = chassis.bus
    await bus.serve(networks.ALLOCATE_INTERFACE, network.attempts.allocate, host=host)
    await bus.serve(networks.CHANGE_INTERFACES, network.rewiring.change, host=host)
    await bus.serve(networks.RELEASE_INTERFACE, network.attempts.release, host=host)
    await bus.serve(networks.CHECK_NETWORK, network.check, host=host)
    await bus.serve(networks.PREPARE_NAMESPACES, kernel.prepare_namespaces, host=host)
    chassis.loop("network", network.keep)
    chassis.loop("pool", kernel.fill_pool)
    chassis.ready()
    await chassis.stopping.wait()
    network.dns.close()
    await asyncio.to_thread(kernel.close)


async def run_entry(chassis: Chassis, settings: Settings, host: HostId) -> None:
    """Run as the fleet's entry."""
    memory = await Lives.of(chassis)
    entry = EntryNetwork(chassis, memory, Nft(), settings)
    await entry.prepare()
    bus = chassis.bus
    await bus.serve(networks.PUBLISH_PORTS, entry.publish, host=host)
    await bus.serve(networks.UNPUBLISH_PORTS, entry.unpublish, host=host)
    await bus.serve(networks.CHECK_NETWORK, entry.check, host=host)
    chassis.loop("entry", entry.keep)
    chassis.ready()
    await chassis.stopping.wait()


def main() -> None:
    """Entry point of `labfleet-network`."""
    settings = Settings()
    host = HostId(settings.host)
    run = run_entry if host == networks.ENTRY else run_host
    run_service("network", settings, lambda chassis: run(chassis, settings, host), host)


if __name__ == "__main__":
    main()
