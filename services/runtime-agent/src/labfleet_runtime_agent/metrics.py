"""Metrics of the runtime agent."""

from prometheus_client import Counter, Gauge, Histogram

CONTAINERS = Gauge("labfleet_agent_containers", "Containers of this host by state.", ("state",))
CAPACITY = Gauge("labfleet_host_capacity", "Capacity after the host reserve.", ("resource",))
FREE = Gauge("labfleet_host_free", "Capacity that is neither used nor held.", ("resource",))
START_PHASE = Histogram(
    "labfleet_container_start_phase_seconds",
    "Duration of the phases of a container's start.",
    ("phase",),
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 30, 120),
)
STARTS = Counter("labfleet_container_starts_total", "Starts by outcome.", ("outcome",))
EXECS = Counter("labfleet_container_execs_total", "Processes started by exec.")
STREAMS = Gauge("labfleet_data_port_streams", "Open byte streams by kind.", ("op",))
