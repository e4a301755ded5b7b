"""Every service serves Prometheus metrics on its own port."""

import asyncio
import urllib.request

from tests.farm.fleet import Fleet

from labfleet_cli import fleet as fleets

WANTED = {
    "api": ("labfleet_http_requests_total", "labfleet_api_containers"),
    "scheduler": ("labfleet_job_duration_seconds_bucket", "labfleet_fleet_free"),
    "image-store": (
        "labfleet_registry_requests_total",
        "labfleet_job_duration_seconds",
        "labfleet_registry_tenant_bytes",
        "labfleet_registry_quota_refusals_total",
    ),
    "runtime-agent": (
        "labfleet_container_start_phase_seconds_bucket",
        "labfleet_bus_connected 1.0",
    ),
    "network": ("labfleet_bus_connected 1.0", "labfleet_loop_failures"),
}


def test_metrics_of_every_service(fleet: Fleet) -> None:
    for host in fleet.plan.hosts:
        label = f"labfleet.constraint=host=={host.id}"
        fleet.docker("run", "--rm", "--label", label, "busybox", "true")
    pongs = asyncio.run(fleets.pings(fleet.plan))
    assert {pong.service for pong in pongs} == set(WANTED)
    addresses = {host.id: host.address for host in fleet.plan.hosts}
    for pong in pongs:
        where = addresses.get(str(pong.host), "127.0.0.1")
        url = f"http://{where}:{pong.metrics_port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        for name in WANTED[pong.service]:
            assert name in text, (pong.service, name)
