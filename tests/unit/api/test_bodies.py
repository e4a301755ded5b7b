"""Bodies: what is set and not served is refused by name; what no tenant may say, by field and rule."""

from typing import Any

import pytest

from labfleet_api.core.bodies import CreateBody, ExecBody
from labfleet_api.core.host_config import HostConfigBody
from labfleet_api.core.place_bodies import NetworkBody, VolumeBody
from labfleet_proto.errors import ForbiddenError, NotImplementedYetError


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
    with pytest.raises(NotImplementedYetError, match=r"HostConfig\.BlkioWeight"):
        host_config(BlkioWeight=300).refuse_unserved("HostConfig.")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (
            {"Mounts": [{"Target": "/a"}, {"Target": "/b", "VolumeOptions": {"Subpath": "x"}}]},
            "HostConfig.Mounts.VolumeOptions.Subpath",
        ),
        (
            {"Mounts": [{"Target": "/a", "VolumeOptions": {"DriverConfig": {"Name": "nfs"}}}]},
            "HostConfig.Mounts.VolumeOptions.DriverConfig",
        ),
        (
            {"Mounts": [{"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": [["a"]]}}]},
            "HostConfig.Mounts.TmpfsOptions.Options",
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
        (NetworkBody.model_validate({"Name": "a", "EnableIPv6": True}), "EnableIPv6"),
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
        ("PidMode", "container:web"),
        ("UTSMode", "host"),
        ("UsernsMode", "host"),
        ("CgroupnsMode", "host"),
        ("IpcMode", "host"),
        ("IpcMode", "container:web"),
        ("OomScoreAdj", -1),
        ("SecurityOpt", ["seccomp=unconfined"]),
        ("SecurityOpt", ["apparmor=unconfined"]),
        ("SecurityOpt", ["label=disable"]),
        ("SecurityOpt", ["no-new-privileges", "systempaths=unconfined"]),
    ],
)
def test_what_no_tenant_may_say_is_forbidden_by_field(field: str, value: object) -> None:
    with pytest.raises(ForbiddenError, match=rf"^HostConfig\.{field}: "):
        host_config(**{field: value}).refuse_forbidden()


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
    ],
)
def test_what_clients_send_by_default_is_not_forbidden(field: str, value: object) -> None:
    host_config(**{field: value}).refuse_forbidden()


def test_names_are_read_in_any_case_and_null_says_nothing() -> None:
    body = CreateBody.model_validate({"image": "a", "Hostname": None, "hostconfig": {"MEMORY": 7}})
    assert (body.Image, body.Hostname) == ("a", "")
    assert body.HostConfig is not None
    assert body.HostConfig.Memory == 7


def test_words_of_a_client_of_its_own_are_ignored() -> None:
    CreateBody.model_validate({"name": "box", "platform": "linux"}).refuse_unserved()
