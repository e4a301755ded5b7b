"""Metrics of the image store."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "labfleet_registry_requests_total", "HTTP requests by kind.", ("kind", "method", "status")
)
DURATION = Histogram(
    "labfleet_registry_request_duration_seconds", "Time to serve a request.", ("kind", "method")
)
RECEIVED = Counter("labfleet_registry_received_bytes_total", "Bytes of blobs received.")
SENT = Counter("labfleet_registry_sent_bytes_total", "Bytes of blobs sent.")
BLOBS = Gauge("labfleet_registry_blobs", "Blobs in the store.")
BLOB_BYTES = Gauge("labfleet_registry_blob_bytes", "Bytes of all blobs in the store.")
FETCHED = Counter("labfleet_registry_fetched_bytes_total", "Bytes of blobs fetched from upstreams.")
