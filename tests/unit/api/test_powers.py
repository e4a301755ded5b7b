"""What an operator's request means for the container's host, and what it may not say either."""

import json
from typing import Any

import pytest
from tests.unit.proto.records import container_id

from labfleet_api.core import create
from labfleet_api.core.attachments import wanted_networks
from labfleet_api.core.bodies import CreateBody
from labfleet_api.core.image_defaults import ImageDefaults
from labfleet_proto.containers import ContainerSpec
from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.powers import DeviceThrottle, DeviceWish, HostPowers


def spec_of(*, is_operator: bool = True, hostname: str = "", **host: Any) -> ContainerSpec:
    fields = {"Image": "busybox", "Cmd": ["sh"], "Hostname": hostname, "HostConfig": host}
    body = CreateBody.model_validate(fields)
    wanted_networks(body, is_operator=is_operator)
    return create.specification(
        container_id(1), body, ImageDefaults(), (), new_volume=lambda: "v", is_operator=is_operator
    )


def powers_of(**host: Any) -> HostPowers:
    found = spec_of(**host).powers
    assert found is not None
    return found


DEVICE = {"PathOnHost": "/dev/kvm", "PathInContainer": "/dev/kvm2", "CgroupPermissions": "rw"}
OF_OPERATORS: dict[str, Any] = {
    "Privileged": True,
    "PidMode": "host",
    "IpcMode": "host",
    "UTSMode": "host",
    "UsernsMode": "host",
    "CgroupnsMode": "host",
    "NetworkMode": "host",
    "Devices": [DEVICE],
    "DeviceCgroupRules": ["c 1:3 rwm"],
    "CapAdd": ["SYS_ADMIN"],
    "SecurityOpt": ["seccomp=unconfined"],
    "MaskedPaths": [],
    "ReadonlyPaths": [],
    "BlkioWeightDevice": [{"Path": "/dev/vda", "Weight": 100}],
    "BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 1}],
    "BlkioDeviceWriteBps": [{"Path": "/dev/vda", "Rate": 1}],
    "BlkioDeviceReadIOps": [{"Path": "/dev/vda", "Rate": 1}],
    "BlkioDeviceWriteIOps": [{"Path": "/dev/vda", "Rate": 1}],
    "CpuRealtimePeriod": 1_000_000,
    "CpuRealtimeRuntime": 5000,
    "OomScoreAdj": -1,
    "Sysctls": {"kernel.domainname": "lab"},
}


@pytest.mark.parametrize("field", OF_OPERATORS)
def test_only_operators_may(field: str) -> None:
    asked = {field: OF_OPERATORS[field]}
    with pytest.raises(ForbiddenError, match=field):
        spec_of(is_operator=False, **asked)
    spec = spec_of(**asked)
    assert spec.powers is not None
    shown = spec.asked_host_config.get(field, [])  # an empty list says nothing
    assert spec.network_mode == "host" if field == "NetworkMode" else shown == asked[field]


def test_an_operators_plain_container_is_as_any_other() -> None:
    asked = {"CapAdd": ["NET_RAW"], "SecurityOpt": ["seccomp=builtin"], "OomScoreAdj": 5}
    assert spec_of(**asked).powers is None


@pytest.mark.parametrize("field", ["CgroupParent", "Cgroup"])
def test_what_no_host_grants_is_refused_to_operators_too(field: str) -> None:
    with pytest.raises(ForbiddenError, match=field):
        spec_of(**{field: "x"})


@pytest.mark.parametrize(
    ("asked", "kinds"),
    [
        ({"Privileged": True}, {"user"}),
        ({"PidMode": "host"}, {"pid", "user"}),
        ({"UTSMode": "host", "IpcMode": "host"}, {"uts", "ipc", "user"}),
        ({"Devices": [DEVICE]}, {"user"}),
        ({"CapAdd": ["CAP_NET_ADMIN"]}, {"user"}),
        ({"CapAdd": ["all"]}, {"user"}),
        ({"Binds": ["/srv:/srv:ro,rshared"]}, {"user"}),
        ({"SecurityOpt": ["seccomp=unconfined"]}, set()),
        ({"MaskedPaths": []}, set()),
    ],
)
def test_what_needs_the_hosts_ids_has_them(asked: dict[str, Any], kinds: set[str]) -> None:
    assert powers_of(**asked).namespaces == kinds


def test_devices_and_disks() -> None:
    found = powers_of(
        Devices=[DEVICE, {"PathOnHost": "/dev/fuse"}],
        BlkioDeviceWriteBps=[{"Path": "/dev/vda", "Rate": 5}],
    )
    assert found.devices == (
        DeviceWish(source="/dev/kvm", target="/dev/kvm2", access="rw"),
        DeviceWish(source="/dev/fuse", target="/dev/fuse"),
    )
    assert found.throttles == (DeviceThrottle(kind="write_bps", path="/dev/vda", value=5),)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"DeviceCgroupRules": ["c 1:3"]}, "invalid device cgroup rule format: 'c 1:3'"),
        ({"Devices": [{"PathOnHost": "kvm"}]}, "absolute"),
        ({"Devices": ["/dev/kvm"]}, "no object"),
        (
            {"Devices": [{"PathOnHost": "/dev/kvm", "CgroupPermissions": "x"}]},
            "invalid device mode",
        ),
        ({"BlkioDeviceReadBps": [{"Path": "/dev/vda"}]}, "BlkioDeviceReadBps"),
        ({"BlkioWeightDevice": [{"Path": "/dev/vda", "Weight": 5}]}, "from 10 to 1000"),
        ({"SecurityOpt": ["seccomp={"]}, "Decoding seccomp profile failed"),
        ({"SecurityOpt": ["seccomp={}"]}, "defaultAction"),
        ({"SecurityOpt": ["odd=1"]}, "invalid --security-opt 2"),
        ({"CapAdd": ["NOSUCH"]}, "unknown capability"),
        ({"PidMode": "odd"}, "invalid PID mode: odd"),
        ({"NetworkMode": "host", "Sysctls": {"net.core.somaxconn": "1"}}, "host network namespace"),
    ],
)
def test_what_means_nothing_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        spec_of(**asked)


def test_a_hostname_and_the_hosts_own_conflict() -> None:
    with pytest.raises(InvalidRequestError, match="hostname and the UTS mode"):
        spec_of(hostname="web", UTSMode="host")


def test_in_its_hosts_network_a_container_has_no_ports_and_its_hosts_name() -> None:
    spec = spec_of(NetworkMode="host", PortBindings={"80/tcp": [{"HostPort": "80"}]})
    assert (spec.ports, spec.hostname) == ((), "")


def test_a_profile_is_kept_as_it_was_sent() -> None:
    text = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "comment": "a=b:c"})
    assert powers_of(SecurityOpt=[f"seccomp={text}"]).seccomp == text


def test_paths_stand_for_the_fleets_own() -> None:
    found = powers_of(MaskedPaths=["/proc/kcore"], SecurityOpt=["label=disable"])
    assert (found.masked_paths, found.read_only_paths) == (("/proc/kcore",), None)
    found = powers_of(SecurityOpt=["systempaths=unconfined"])
    assert (found.masked_paths, found.read_only_paths) == ((), ())


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 1001},
            "higher than cpu real-time period",
        ),
        ({"CpuRealtimeRuntime": 1_000_001}, "higher than cpu real-time period"),
        ({"CpuRealtimePeriod": -1}, "HostConfig.CpuRealtimePeriod: -1"),
    ],
)
def test_real_time_beyond_its_period_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        powers_of(**asked)
