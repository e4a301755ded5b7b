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
SCRUBBED = Counter("labfleet_registry_scrubbed_bytes_total", "Bytes of blobs read again.")
SCRUBBED_BLOBS = Counter("labfleet_registry_scrubbed_blobs_total", "Blobs read again and sound.")
SCRUB_POSITION = Gauge(
    "labfleet_registry_scrub_position_ratio", "How much of the store this pass has read."
)
SCRUB_ENDED = Gauge(
    "labfleet_registry_scrub_ended_timestamp_seconds", "When the last whole pass ended."
)
DAMAGED = Counter("labfleet_registry_damaged_blobs_total", "Blobs found damaged.")
HEALED = Counter("labfleet_registry_healed_blobs_total", "Damaged blobs that are whole again.")
BROUGHT = Counter(
    "labfleet_registry_brought_blobs_total",
    "Damaged blobs that a host or a mirror has given again.",
    ("source",),
)
QUARANTINED = Gauge("labfleet_registry_quarantined_blobs", "Damaged blobs that are set aside now.")
TENANT_BYTES = Gauge(
    "labfleet_registry_tenant_bytes",
    "Bytes that count for a tenant's quota.",
    (
        "tenant",
    ),  # whom to talk to when the disk fills; a fleet has hundreds, and they go with the tenant
)
QUOTA_REFUSALS = Counter("labfleet_registry_quota_refusals_total", "Refused for a tenant's quota.")
