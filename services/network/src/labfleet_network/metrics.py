"""Metrics of the network service."""

from prometheus_client import Counter, Gauge, Histogram

ENDPOINTS = Gauge("labfleet_network_endpoints", "Container interfaces on this host.")
PORTS = Gauge("labfleet_network_published_ports", "Host ports that lead to containers.")
ALLOCATE_STEP = Histogram(
    "labfleet_network_allocate_step_seconds",
    "Duration of the steps of making a container's network.",
    ("step",),
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
)
QUERIES = Counter("labfleet_dns_queries_total", "DNS queries by outcome.", ("outcome",))
REPAIRS = Counter("labfleet_network_repairs_total", "Kernel objects mended by the loop.", ("kind",))
