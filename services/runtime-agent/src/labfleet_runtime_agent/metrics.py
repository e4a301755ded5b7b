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
LAYER_FETCHED = Counter(
    "labfleet_layer_fetched_bytes_total", "Bytes of layers fetched, by source.", ("source",)
)
LAYER_SERVED = Counter("labfleet_layer_served_bytes_total", "Bytes of layers sent to other hosts.")
LAYER_UPLOADS = Gauge("labfleet_layer_uploads", "Layers being sent to other hosts.")
LAYER_FAILOVERS = Counter(
    "labfleet_layer_failovers_total", "Sources of layers that failed, by kind.", ("source",)
)
LAYER_LIES = Counter(
    "labfleet_layer_lies_total", "Layers that other hosts sent with the wrong content."
)
LAYERS = Gauge("labfleet_layers", "Layers that are unpacked here.")
BLOB_BYTES = Gauge("labfleet_layer_blob_bytes", "Compressed layers kept for other hosts.")
EVICTED = Counter("labfleet_layers_evicted_total", "Layers that went for room.", ("kind",))
DISK_USED = Gauge("labfleet_disk_used_ratio", "Used part of the disk of the host's state.")
