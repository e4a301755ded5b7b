"""Containers in docker's shapes."""

from typing import Any

import pytest
from tests.unit.proto.records import (
    HOST,
    container_record,
    container_spec,
    limits,
    network_id,
    observation,
)

from labfleet_api.core import network_views, views
from labfleet_proto.containers import (
    Goal,
    NetworkAttachment,
    Observation,
    PortBinding,
    State,
    VolumeMount,
)
from labfleet_proto.hosts import HostRecord
from labfleet_proto.networks import Endpoint
from labfleet_proto.resources import Resources

S = 1_000_000_000
NOW = 1_700_000_000 * S
ENDPOINT = Endpoint(
    network=network_id(1),
    network_name="front",
    address="10.100.1.2",
    prefix_len=24,
    mac="02:42:0a:64:01:02",
    gateway="10.100.1.1",
    interface="eth0",
)


def running(**fields: Any) -> Observation:
    return observation(State.RUNNING, started_at_ns=NOW - 120 * S, pid=77, **fields)


def exited(code: int = 137, **fields: Any) -> Observation:
    return observation(
        State.EXITED,
        started_at_ns=NOW - 60 * S,
        finished_at_ns=NOW - 3 * S,
        exit_code=code,
        **fields,
    )


# -- state and status


@pytest.mark.parametrize(
    ("goal", "seen", "word"),
    [
        (Goal.CREATED, None, "created"),
        (Goal.RUNNING, observation(State.ASSIGNED), "created"),
        (Goal.RUNNING, observation(State.PREPARING), "created"),
        (Goal.RUNNING, observation(State.CREATED), "created"),
        (Goal.RUNNING, running(), "running"),
        (Goal.STOPPED, observation(State.STOPPING, started_at_ns=1), "running"),
        (Goal.RUNNING, exited(), "exited"),
        (Goal.RUNNING, observation(State.EXITED, exit_code=127), "created"),
        (Goal.REMOVED, running(), "removing"),
        (Goal.STOPPED, observation(State.REMOVED), "removing"),
    ],
)
def test_the_state_in_dockers_word(goal: Goal, seen: Observation | None, word: str) -> None:
    assert views.state_of(container_record(goal=goal), seen) == word


@pytest.mark.parametrize(
    ("goal", "seen", "sentence"),
    [
        (Goal.CREATED, None, "Created"),
        (Goal.RUNNING, running(), "Up 2 minutes"),
        (Goal.RUNNING, exited(), "Exited (137) 3 seconds ago"),
        (Goal.RUNNING, exited(0), "Exited (0) 3 seconds ago"),
        (Goal.REMOVED, running(), "Removal In Progress"),
    ],
)
def test_the_status_in_dockers_sentence(
    goal: Goal, seen: Observation | None, sentence: str
) -> None:
    record = container_record(goal=goal)
    assert views.status_of(record, seen, NOW, is_host_lost=False) == sentence


def test_the_status_says_that_the_host_is_lost() -> None:
    status = views.status_of(container_record(), running(), NOW, is_host_lost=True)
    assert status == f"Up 2 minutes (host {HOST} is lost)"


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        (None, {"Status": "created", "Running": False, "Pid": 0, "ExitCode": 0, "Error": ""}),
        (running(), {"Status": "running", "Running": True, "Pid": 77, "ExitCode": 0}),
        (
            exited(was_oom_killed=True, pid=77),
            {"Status": "exited", "Running": False, "Pid": 0, "ExitCode": 137, "OOMKilled": True},
        ),
        (
            observation(State.EXITED, exit_code=127, error="not found"),
            {"Status": "created", "ExitCode": 127, "Error": "not found"},
        ),
    ],
)
def test_the_state_of_inspect(seen: Observation | None, shown: dict[str, Any]) -> None:
    state = views.state_json(container_record(), seen)
    assert shown.items() <= state.items()


def test_a_container_that_never_ran_has_gos_zero_times() -> None:
    state = views.state_json(container_record(), None)
    assert state["StartedAt"] == state["FinishedAt"] == "0001-01-01T00:00:00Z"


# -- ports

PORTS = container_spec(
    exposed_ports=("80/tcp", "53/udp"),
    ports=(
        PortBinding(container_port=80, host_port=8080),
        PortBinding(container_port=80, host_port=8081, host_address="127.0.0.1"),
    ),
)


def test_rows_of_ports_while_it_runs() -> None:
    assert network_views.port_rows(PORTS, is_running=True) == [
        {"PrivatePort": 53, "Type": "udp"},
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},  # noqa: S104
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"},
    ]


def test_no_rows_of_ports_while_it_does_not_run() -> None:
    assert network_views.port_rows(PORTS, is_running=False) == []


def test_the_map_of_ports() -> None:
    assert network_views.port_map(PORTS) == {
        "80/tcp": [
            {"HostIp": "0.0.0.0", "HostPort": "8080"},  # noqa: S104
            {"HostIp": "127.0.0.1", "HostPort": "8081"},
        ],
        "53/udp": None,
    }


# -- networks and mounts

FRONT = NetworkAttachment(network_id=network_id(1), network_name="front", aliases=("www",))


def test_an_endpoint_shows_its_address_while_it_is_there() -> None:
    record = container_record(name="web", spec=container_spec(networks=(FRONT,)))
    shown = network_views.endpoints(record, running(endpoints=(ENDPOINT,)))["front"]
    assert shown["IPAddress"] == "10.100.1.2"
    assert shown["IPPrefixLen"] == 24
    assert shown["Gateway"] == "10.100.1.1"
    assert shown["MacAddress"] == ENDPOINT.mac
    assert shown["NetworkID"] == network_id(1)
    assert len(shown["EndpointID"]) == 64
    assert shown["Aliases"] == ["www"]
    assert shown["DNSNames"] == ["web", "www", record.id[:12]]


def test_an_endpoint_is_empty_while_nothing_is_there() -> None:
    record = container_record(spec=container_spec(networks=(FRONT,)))
    shown = network_views.endpoints(record, None)["front"]
    assert (shown["IPAddress"], shown["EndpointID"], shown["IPPrefixLen"]) == ("", "", 0)


def test_a_container_without_network_shows_none() -> None:
    record = container_record(spec=container_spec(network_mode="none"))
    assert list(network_views.endpoints(record, None)) == ["none"]


def test_volumes_and_tmpfs_are_mounts() -> None:
    spec = container_spec(
        mounts=(
            VolumeMount(volume="data", target="/data"),
            VolumeMount(volume="conf", target="/conf", read_only=True),
        ),
        tmpfs={"/run": "size=1m"},
    )
    shown = [
        (each["Type"], each.get("Name"), each["Destination"], each["RW"])
        for each in views.mounts(spec)
    ]
    assert shown == [
        ("volume", "data", "/data", True),
        ("volume", "conf", "/conf", False),
        ("tmpfs", None, "/run", True),
    ]


# -- rows and inspect


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        (("true",), "true"),
        (("sh", "-c", "echo a; echo b"), "sh -c 'echo a; echo b'"),
        (("/my program", "x"), "/my program x"),
    ],
)
def test_the_command_in_the_list(argv: tuple[str, ...], shown: str) -> None:
    record = container_record(spec=container_spec(entrypoint=(), command=argv))
    assert views.row(record, running(), NOW, is_host_lost=False)["Command"] == shown


def test_a_row_of_the_list() -> None:
    record = container_record(
        name="web",
        created_at_ns=NOW,
        spec=container_spec(entrypoint=("/bin/sh", "-c"), command=("ls",), labels={"a": "1"}),
    )
    row = views.row(record, running(), NOW, is_host_lost=False)
    assert row["Id"] == record.id
    assert row["Names"] == ["/web"]
    assert row["Image"] == "busybox"
    assert row["ImageID"].startswith("sha256:")
    assert row["Command"] == "/bin/sh -c ls"
    assert row["Created"] == 1_700_000_000
    assert row["Labels"] == {"a": "1", "labfleet.host": HOST}
    assert (row["State"], row["Status"]) == ("running", "Up 2 minutes")


TOP = """
    Id Created Path Args State Image ResolvConfPath HostnamePath HostsPath LogPath Name RestartCount
    Driver Platform MountLabel ProcessLabel AppArmorProfile ExecIDs HostConfig GraphDriver Mounts
    Config NetworkSettings
"""
STATE = """
    Status Running Paused Restarting OOMKilled Dead Pid ExitCode Error StartedAt FinishedAt
"""
CONFIG = """
    Hostname Domainname User AttachStdin AttachStdout AttachStderr ExposedPorts Tty OpenStdin
    StdinOnce Env Cmd Image Volumes WorkingDir Entrypoint OnBuild Labels StopSignal StopTimeout
"""
HOST_CONFIG = """
    Binds ContainerIDFile LogConfig NetworkMode PortBindings RestartPolicy AutoRemove VolumeDriver
    VolumesFrom ConsoleSize CapAdd CapDrop CgroupnsMode Dns DnsOptions DnsSearch ExtraHosts GroupAdd
    IpcMode Cgroup Links OomScoreAdj PidMode Privileged PublishAllPorts ReadonlyRootfs SecurityOpt
    UTSMode UsernsMode ShmSize Runtime Isolation CpuShares Memory NanoCpus CgroupParent BlkioWeight
    BlkioWeightDevice BlkioDeviceReadBps BlkioDeviceWriteBps BlkioDeviceReadIOps
    BlkioDeviceWriteIOps CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpusetCpus
    CpusetMems Devices DeviceCgroupRules DeviceRequests MemoryReservation MemorySwap
    MemorySwappiness OomKillDisable PidsLimit Ulimits CpuCount CpuPercent IOMaximumIOps
    IOMaximumBandwidth MaskedPaths ReadonlyPaths Init
"""
NETWORK = """
    Bridge SandboxID SandboxKey Ports EndpointID Gateway IPAddress IPPrefixLen MacAddress Networks
"""


def test_inspect_has_dockers_keys() -> None:
    shown = views.inspect(container_record(), None, None)
    assert set(TOP.split()) | {"Node"} == set(shown)
    assert set(STATE.split()) == set(shown["State"])
    assert set(CONFIG.split()) == set(shown["Config"])
    assert set(HOST_CONFIG.split()) == set(shown["HostConfig"])
    assert set(NETWORK.split()) == set(shown["NetworkSettings"])


def test_inspect_shows_the_running_container() -> None:
    record = container_record(
        name="web",
        created_at_ns=NOW,
        spec=container_spec(
            entrypoint=("/entry",),
            command=("a", "b"),
            networks=(FRONT,),
            ports=PORTS.ports,
            limits=limits(cpu_millis=1500, cpuset_cpus="0"),
            is_tty=True,
            attach=("stdout",),
        ),
    )
    shown = views.inspect(record, running(endpoints=(ENDPOINT,)), None)
    assert shown["Name"] == "/web"
    assert (shown["Path"], shown["Args"]) == ("/entry", ["a", "b"])
    assert shown["Created"] == "2023-11-14T22:13:20.000000000Z"
    assert shown["Config"]["AttachStdout"] is True
    assert shown["Config"]["AttachStdin"] is False
    assert shown["HostConfig"]["NanoCpus"] == 1_500_000_000
    assert shown["HostConfig"]["CpusetCpus"] == "0"
    assert shown["NetworkSettings"]["IPAddress"] == "10.100.1.2"
    assert shown["NetworkSettings"]["Ports"] == network_views.port_map(record.spec)


def test_inspect_of_a_stopped_container_has_no_live_ports() -> None:
    asked = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}}
    spec = PORTS.model_copy(update={"asked_host_config": asked})
    shown = views.inspect(container_record(spec=spec), exited(), None)
    assert shown["NetworkSettings"]["Ports"] == {}
    assert shown["HostConfig"]["PortBindings"] == {"80/tcp": [{"HostPort": "8080"}]}


def test_inspect_names_the_host_and_the_reason() -> None:
    host = HostRecord(
        id=HOST,
        address="192.0.2.1",
        data_port=1,
        capacity=Resources(),
        free=Resources(),
        cores=4,
        total_memory_bytes=1,
        labels={"zone": "a"},
        boot_id="b",
        updated_at_ns=0,
    )
    assert views.inspect(container_record(), None, host)["Node"] == {
        "ID": HOST,
        "Name": HOST,
        "IP": "192.0.2.1",
        "Labels": {"zone": "a"},
        "Reason": "test",
    }
