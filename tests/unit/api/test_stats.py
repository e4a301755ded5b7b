"""Stats: the inputs of docker's percentages."""

from tests.unit.proto.records import container_record

from labfleet_api.core.stats import stats_json
from labfleet_proto.runtime import ContainerStats, DeviceIo, InterfaceCounters

BEFORE = ContainerStats(
    read_at_ns=1_700_000_000_000_000_000,
    cpu_total_ns=1_000_000_000,
    host_cpu_ns=100_000_000_000,
    online_cpus=4,
)
NOW = ContainerStats(
    read_at_ns=1_700_000_001_000_000_000,
    cpu_total_ns=1_500_000_000,
    cpu_user_ns=1_200_000_000,
    cpu_system_ns=300_000_000,
    host_cpu_ns=104_000_000_000,
    online_cpus=4,
    throttled_periods=3,
    throttled_ns=7,
    memory_bytes=100,
    memory_cache_bytes=30,
    memory_limit_bytes=1000,
    pids=5,
    pids_limit=512,
    devices=(DeviceIo(major=8, minor=16, read_bytes=11, written_bytes=22, reads=1, writes=2),),
    interfaces={"eth0": InterfaceCounters(rx_bytes=1, tx_bytes=2)},
)


def test_the_percentage_that_dockers_client_computes_is_right() -> None:
    """Half a core for a second on four cores: `calculateCPUPercentUnix` of docker's client."""
    shown = stats_json(container_record(), NOW, BEFORE)
    cpu, before = shown["cpu_stats"], shown["precpu_stats"]
    used = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    whole = cpu["system_cpu_usage"] - before["system_cpu_usage"]
    assert used / whole * cpu["online_cpus"] * 100 == 50.0


def test_the_memory_that_dockers_client_shows_is_without_cache() -> None:
    """On both versions of control groups: `calculateMemUsageUnixNoCache` of docker's client."""
    memory = stats_json(container_record(), NOW, BEFORE)["memory_stats"]
    assert memory["limit"] == 1000
    for name in ("total_inactive_file", "inactive_file"):
        assert memory["usage"] - memory["stats"][name] == 70


def test_without_an_earlier_sample_the_earlier_one_is_zero() -> None:
    shown = stats_json(container_record(), NOW, None)
    assert shown["preread"] == "0001-01-01T00:00:00Z"
    assert shown["precpu_stats"]["cpu_usage"]["total_usage"] == 0
    assert "system_cpu_usage" not in shown["precpu_stats"]


def test_everything_else_of_the_sample_is_shown() -> None:
    shown = stats_json(container_record(name="web"), NOW, BEFORE)
    assert shown["name"] == "/web"
    assert shown["read"] == "2023-11-14T22:13:21.000000000Z"
    assert shown["preread"] == "2023-11-14T22:13:20.000000000Z"
    assert shown["pids_stats"] == {"current": 5, "limit": 512}
    assert shown["cpu_stats"]["throttling_data"]["throttled_periods"] == 3
    assert [
        (each["op"], each["value"]) for each in shown["blkio_stats"]["io_service_bytes_recursive"]
    ] == [("Read", 11), ("Write", 22)]
    assert shown["blkio_stats"]["io_serviced_recursive"][0]["value"] == 1
    assert shown["networks"]["eth0"]["rx_bytes"] == 1
    assert shown["networks"]["eth0"]["tx_dropped"] == 0
