"""Metrics of the api."""

from prometheus_client import Counter, Gauge, Histogram

_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)

REQUESTS = Counter("labfleet_http_requests_total", "HTTP requests.", ("method", "route", "status"))
DURATION = Histogram(
    "labfleet_http_request_duration_seconds",
    "Time from a request's head to the end of its answer.",
    ("method", "route"),
    buckets=_BUCKETS,
)
STREAMS = Gauge("labfleet_http_streams", "Open hijacked connections.")
CONTAINERS = Gauge(
    "labfleet_api_containers", "Containers as `docker ps -a` shows them.", ("state",)
)
