"""Bodies: what is set and not served is refused by name; what no tenant may say, by field and rule."""

from typing import Any

import pytest

from labfleet_api.core.adjustments import warnings
from labfleet_api.core.bodies import CreateBody, ExecBody
from labfleet_api.core.create import refuse
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.mounts import volumes
from labfleet_api.core.place_bodies import NetworkBody, VolumeBody
from labfleet_proto.errors import (
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    NotImplementedYetError,
)


def host_config(**fields: Any) -> HostConfigBody:
    return HostConfigBody.model_validate(fields)


@pytest.mark.parametrize("value", [None, "", 0, 0.0, False, [], {}])
def test_an_unserved_field_that_says_nothing_is_not_refused(value: object) -> None:
    CreateBody.model_validate({"Invented": value}).refuse_unserved()


@pytest.mark.parametrize("value", ["a", 1, -1, True, ["a"], {"a": None}])
def test_an_unserved_field_is_refused_by_name(value: object) -> None:
    with pytest.raises(NotImplementedYetError, match=r"^labfleet: Invented is not there yet$"):
        CreateBody.model_validate({"Invented": value}).refuse_unserved()


def test_the_prefix_says_where_the_field_is() -> None:
    with pytest.raises(NotImplementedYetError, match=r"HostConfig\.Invented"):
        host_config(Invented=300).refuse_unserved("HostConfig.")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (
            {"Mounts": [{"Target": "/a"}, {"Target": "/b", "VolumeOptions": {"Invented": "x"}}]},
            "HostConfig.Mounts.VolumeOptions.Invented",
        ),
        (
            {"Mounts": [{"Target": "/a", "VolumeOptions": {"DriverConfig": {"Invented": "nfs"}}}]},
            "HostConfig.Mounts.VolumeOptions.DriverConfig.Invented",
        ),
        (
            {"Mounts": [{"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Invented": [["a"]]}}]},
            "HostConfig.Mounts.TmpfsOptions.Invented",
        ),
    ],
)
def test_an_unserved_field_within_a_field_is_refused_by_its_whole_name(
    fields: dict[str, Any], name: str
) -> None:
    with pytest.raises(NotImplementedYetError, match=f"^labfleet: {name} is not there yet$"):
        host_config(**fields).refuse_unserved("HostConfig.")


def test_a_create_body_refuses_fields_of_its_host_config() -> None:
    body = CreateBody.model_validate({"HostConfig": {"Invented": 1}})
    with pytest.raises(NotImplementedYetError, match=r"labfleet: HostConfig\.Invented"):
        body.refuse_unserved()


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (NetworkBody.model_validate({"Name": "a", "ConfigOnly": True}), "ConfigOnly"),
        (
            NetworkBody.model_validate(
                {"Name": "a", "IPAM": {"Config": [{"Invented": {"a": "10.0.0.1"}}]}}
            ),
            "IPAM.Config.Invented",
        ),
        (VolumeBody.model_validate({"ClusterVolumeSpec": {"Group": "a"}}), "ClusterVolumeSpec"),
        (ExecBody.model_validate({"Invented": 1}), "Invented"),
    ],
)
def test_other_bodies_refuse_by_name_too(
    body: NetworkBody | VolumeBody | ExecBody, name: str
) -> None:
    with pytest.raises(NotImplementedYetError, match=f"^labfleet: {name} is"):
        body.refuse_unserved()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Privileged", True),
        ("Devices", [{"PathOnHost": "/dev/sda"}]),
        ("DeviceCgroupRules", ["c 1:3 mr"]),
        ("CgroupParent", "/system.slice"),
        ("PidMode", "host"),
        ("PidMode", "ns:/proc/1/ns/pid"),
        ("UTSMode", "host"),
        ("UsernsMode", "host"),
        ("CgroupnsMode", "host"),
        ("IpcMode", "host"),
        ("IpcMode", "ns:/proc/1/ns/ipc"),
        ("OomScoreAdj", -1),
        ("Cgroup", "container:web"),
        ("CpuRealtimeRuntime", 1000),
        ("BlkioWeightDevice", [{"Path": "/dev/sda", "Weight": 100}]),
        ("BlkioDeviceReadBps", [{"Path": "/dev/sda", "Rate": 100}]),
        ("Annotations", {"run.oci.hooks.stdout": "x"}),
        ("MaskedPaths", []),
        ("ReadonlyPaths", []),
        ("SecurityOpt", ["seccomp=unconfined"]),
        ("SecurityOpt", ["apparmor=unconfined"]),
        ("SecurityOpt", ["label=disable"]),
        ("SecurityOpt", ["no-new-privileges", "systempaths=unconfined"]),
        ("SecurityOpt", ["seccomp={}"]),
        ("SecurityOpt", ["label:type:x"]),
    ],
)
def test_what_no_tenant_may_say_is_forbidden_by_field(field: str, value: object) -> None:
    with pytest.raises(ForbiddenError, match=rf"^HostConfig\.{field}: "):
        refuse(CreateBody(), host_config(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("Privileged", False),
        ("Devices", []),
        ("CgroupnsMode", "private"),
        ("IpcMode", "private"),
        ("IpcMode", "shareable"),
        ("OomScoreAdj", 500),
        ("SecurityOpt", ["no-new-privileges"]),
        ("SecurityOpt", ["seccomp=builtin"]),
        ("MaskedPaths", ["/proc/kcore"]),
        ("Annotations", {"a": "b"}),
        ("Runtime", "runc"),
        ("Isolation", "default"),
        ("VolumeDriver", "local"),
    ],
)
def test_what_clients_send_by_default_is_not_forbidden(field: str, value: object) -> None:
    refuse(CreateBody(), host_config(**{field: value}))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("PidMode", "odd", "invalid PID mode: odd"),
        ("IpcMode", "odd", "invalid IPC mode: odd"),
        ("UTSMode", "odd", "invalid UTS mode: odd"),
        ("UsernsMode", "odd", "invalid user namespace mode: odd"),
        ("SecurityOpt", ["odd"], "invalid --security-opt"),
        ("Annotations", {"": "x"}, "empty string is not permitted"),
        ("DeviceRequests", [{"Count": -1, "Capabilities": [["gpu"]]}], "could not select device"),
        ("StorageOpt", {"size": "1G"}, "pquota"),
        ("Runtime", "kata", "unknown or invalid runtime name: kata"),
        ("Isolation", "hyperv", "invalid isolation"),
        ("CapAdd", ["NO_SUCH"], "invalid CapAdd: unknown capability"),
        ("CapDrop", ["NO_SUCH"], "invalid CapDrop: unknown capability"),
    ],
)
def test_what_means_nothing_here_is_invalid(field: str, value: object, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        refuse(CreateBody(), host_config(**{field: value}))


@pytest.mark.parametrize(("binds", "of_image"), [(["named:/x"], ()), (["/x"], ()), ([], ("/x",))])
def test_another_volume_driver_is_not_found(binds: list[str], of_image: tuple[str, ...]) -> None:
    host = host_config(VolumeDriver="nfs", Binds=binds)
    with pytest.raises(NotFoundError, match='plugin "nfs" not found'):
        volumes(CreateBody(), host, of_image, lambda: "new")


def test_another_volume_driver_is_taken_where_no_volume_is_made() -> None:
    host = host_config(VolumeDriver="nfs")
    refuse(CreateBody(), host)
    assert volumes(CreateBody(), host, (), lambda: "new") == ()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Memory": 64 << 20, "MemorySwap": 128 << 20}, "Memory limited without swap"),
        ({"MemorySwap": -1}, "Memory limited without swap"),
        ({"MemorySwappiness": 60}, "Memory swappiness discarded"),
        ({"OomKillDisable": True}, "OomKillDisable discarded"),
        ({"KernelMemory": 64 << 20}, "kernel memory limit is deprecated"),
        ({"MaskedPaths": ["/a"]}, "added to the fleet's own"),
        ({"Annotations": {"a": "b"}}, "no effect"),
    ],
)
def test_what_is_adjusted_is_told(fields: dict[str, Any], words: str) -> None:
    (said,) = warnings(CreateBody(HostConfig=host_config(**fields)))
    assert words in said


def test_what_is_served_needs_no_words() -> None:
    asked = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "MemorySwappiness": -1}
    assert warnings(CreateBody(HostConfig=host_config(**asked))) == []
    assert warnings(CreateBody()) == []


def test_names_are_read_in_any_case_and_null_says_nothing() -> None:
    body = CreateBody.model_validate({"image": "a", "Hostname": None, "hostconfig": {"MEMORY": 7}})
    assert (body.Image, body.Hostname) == ("a", "")
    assert body.HostConfig is not None
    assert body.HostConfig.Memory == 7


def test_words_of_a_client_of_its_own_are_ignored() -> None:
    CreateBody.model_validate({"name": "box", "platform": "linux"}).refuse_unserved()
