"""Prometheus metrics that every service has."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

JOB_DURATION = Histogram(
    "labfleet_job_duration_seconds", "Time to serve a job.", ("kind", "outcome"), buckets=_FAST
)
CALL_DURATION = Histogram(
    "labfleet_bus_call_duration_seconds",
    "Time from sending a job to its answer.",
    ("kind", "outcome"),
    buckets=_FAST,
)
RESENDS = Counter(
    "labfleet_bus_resends_total", "Jobs sent again since no answer had come.", ("kind",)
)
STORE_WRITE_DURATION = Histogram(
    "labfleet_store_write_duration_seconds",
    "Time of one durable write to the fleet's memory.",
    ("bucket", "outcome"),
    buckets=_FAST,
)
BUS_CONNECTED = Gauge("labfleet_bus_connected", "1 while connected to NATS.")
BUS_RECONNECTS = Counter("labfleet_bus_reconnects_total", "Reconnections to NATS.")
LOOP_FAILURES = Counter(
    "labfleet_loop_failures_total",
    "Times a supervised loop failed and was restarted, or a task of its own failed.",
    ("loop",),
)


def serve(address: str, port: int) -> int:
    """Serve `/metrics` from a thread; return the port (chosen by the kernel if `port` is 0)."""
    server, _ = start_http_server(port, address, REGISTRY)
    return int(server.server_address[1])
