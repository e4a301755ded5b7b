"""Metrics of the scheduler."""

from prometheus_client import Counter, Gauge

PLACEMENTS = Counter("labfleet_placements_total", "Placements by outcome.", ("outcome",))
HOSTS = Gauge("labfleet_hosts", "Hosts by whether their lease is alive.", ("state",))
FLEET_CAPACITY = Gauge("labfleet_fleet_capacity", "Sum over the living hosts.", ("resource",))
FLEET_FREE = Gauge("labfleet_fleet_free", "Sum over the living hosts.", ("resource",))
CONTAINERS = Gauge("labfleet_containers", "Containers of the fleet by goal.", ("goal",))
IS_LEADER = Gauge("labfleet_scheduler_is_leader", "1 on the active scheduler.")
PROMISES = Counter("labfleet_promises_kept_total", "Actions of the promise loop.", ("kind",))
