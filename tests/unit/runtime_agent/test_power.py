"""The OCI document of an operator's container: as much of the host as was asked for, and no more."""

import json
from typing import Any

import pytest
from tests.unit.proto.records import container_record, container_spec
from tests.unit.runtime_agent.default_container import built, host_part

from labfleet_proto.containers import HostBind
from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_proto.ids import OPERATORS
from labfleet_proto.powers import HostPowers
from labfleet_proto.privileges import KNOWN_CAPABILITIES
from labfleet_runtime_agent.core import power, seccomp_document
from labfleet_runtime_agent.core.power import EVERYTHING, Device, HostPower, device_rules
from labfleet_runtime_agent.core.spec import VolumeSource

HOST_IDS: frozenset[Any] = frozenset({"user"})
PRIVILEGED = HostPowers(is_privileged=True, namespaces=HOST_IDS)
KVM = Device("/dev/kvm", "c", 10, 232, 0o660, 0, 105, "rw")
FEW = HostPower(capabilities=KNOWN_CAPABILITIES - {"SYS_RESOURCE"}, devices=(KVM,))


def kinds(document: dict[str, Any]) -> set[str]:
    return {each["type"] for each in document["linux"]["namespaces"]}


def bounding(document: dict[str, Any]) -> set[str]:
    return {each.removeprefix("CAP_") for each in document["process"]["capabilities"]["bounding"]}


def mounts(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["destination"]: each for each in document["mounts"]}


def test_a_privileged_container_has_what_its_host_has() -> None:
    document = built(host_part(power=FEW), powers=PRIVILEGED, cap_drop=("ALL",))
    assert kinds(document) == {"pid", "ipc", "uts", "mount", "cgroup", "network"}
    assert not {"uidMappings", "gidMappings", "seccomp"} & set(document["linux"])
    assert bounding(document) == KNOWN_CAPABILITIES - {"SYS_RESOURCE"}
    assert document["linux"]["maskedPaths"] == document["linux"]["readonlyPaths"] == []
    assert document["linux"]["devices"] == [
        {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232, "fileMode": 0o660, "uid": 0, "gid": 105}
    ]  # fmt: skip
    assert "rw" in mounts(document)["/sys"]["options"]
    assert mounts(document)["/sys"]["type"] == "sysfs"


def test_hooks_and_annotations_are_not_even_an_operators() -> None:
    assert not {"hooks", "annotations"} & set(built(host_part(power=FEW), powers=PRIVILEGED))


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "cgroup", "network"])
def test_a_namespace_of_the_host_is_left_out(kind: Any) -> None:
    document = built(powers=HostPowers(namespaces=HOST_IDS | {kind}))
    assert kinds(document) == {"pid", "ipc", "uts", "mount", "cgroup", "network"} - {kind}
    assert ("hostname" in document) is (kind != "uts")
    assert mounts(document)["/dev/shm"]["type"] == ("bind" if kind == "ipc" else "tmpfs")


def test_capabilities_beyond_the_list_open_their_calls() -> None:
    document = built(powers=HostPowers(namespaces=HOST_IDS), cap_add=("SYS_ADMIN",))
    assert "SYS_ADMIN" in bounding(document)
    rules = document["linux"]["seccomp"]["syscalls"]
    assert any("mount" in rule["names"] and rule["action"] == "SCMP_ACT_ALLOW" for rule in rules)
    assert next(rule for rule in rules if "clone3" in rule["names"])["action"] == "SCMP_ACT_ALLOW"


def test_no_more_capabilities_than_the_host_has() -> None:
    powers = HostPowers(namespaces=HOST_IDS)
    document = built(host_part(power=FEW), powers=powers, cap_add=("SYS_RESOURCE", "SYS_TIME"))
    assert "SYS_TIME" in bounding(document)
    assert "SYS_RESOURCE" not in bounding(document)


def test_without_powers_the_host_has_nothing_to_give() -> None:
    with pytest.raises(ForbiddenError):
        built(host_part(power=FEW), cap_add=("SYS_ADMIN",))


def test_masked_and_read_only_paths_are_those_asked_for() -> None:
    linux = built(powers=HostPowers(masked_paths=("/proc/kcore",), read_only_paths=()))["linux"]
    assert (linux["maskedPaths"], linux["readonlyPaths"]) == (["/proc/kcore"], [])


@pytest.mark.parametrize(
    ("asked", "least", "score"), [(-500, 0, 0), (-500, -1000, -500), (7, 0, 7)]
)
def test_a_lower_score_only_where_the_host_may(asked: int, least: int, score: int) -> None:
    part = host_part(power=HostPower(least_oom_score_adj=least))
    assert built(part, powers=HostPowers(), oom_score_adj=asked)["process"]["oomScoreAdj"] == score


@pytest.mark.parametrize(
    ("propagation", "expected"), [("rshared", "rshared"), ("slave", "rslave"), ("rprivate", None)]
)
def test_mounts_pass_through_the_root_only_if_they_are_to(propagation: str, expected: str) -> None:
    volume = VolumeSource("/v", "/data", is_read_only=False, propagation=propagation)
    document = built(host_part(volumes=(volume,)), powers=HostPowers(namespaces=HOST_IDS))
    assert document["linux"].get("rootfsPropagation") == expected
    assert mounts(document)["/data"]["options"] == ["rbind", propagation, "rw"]


def test_what_is_mounted_at_dev_stands_for_all_below_it() -> None:
    volume = VolumeSource("/dev", "/dev", is_read_only=False)
    found = mounts(built(host_part(volumes=(volume,)), powers=PRIVILEGED))
    assert [target for target in found if target.startswith("/dev")] == ["/dev"]
    assert found["/dev"]["source"] == "/dev"


def test_the_control_group_allows_what_was_asked_for() -> None:
    from tests.unit.proto.records import container_spec  # noqa: PLC0415

    rules = HostPowers(device_rules=("b 8:* r",))
    assert device_rules(container_spec(powers=rules), FEW) == ("c 10:232 rw", "b 8:* r")
    assert device_rules(container_spec(powers=PRIVILEGED), FEW) == (EVERYTHING,)
    assert device_rules(container_spec(), HostPower()) == ()


# -- profiles in docker's words


def profile(*rules: dict[str, Any], **more: Any) -> str:
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules, **more})


def names(text: str, held: tuple[str, ...] = (), kernel: str = "6.1.0-9-amd64") -> list[str]:
    found = seccomp_document.converted(text, held, kernel)
    return [name for rule in found["syscalls"] for name in rule["names"]]


def rule(name: str, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": "SCMP_ACT_ALLOW", **more}


def test_rules_hold_for_their_capability_processor_and_kernel() -> None:
    text = profile(
        rule("a", includes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("b", excludes={"caps": ["CAP_SYS_ADMIN"]}),
        rule("c", includes={"arches": ["s390x"]}),
        rule("d", includes={"arches": ["amd64", "x32"]}),
        rule("e", includes={"minKernel": "4.8"}),
        rule("f", excludes={"minKernel": "6.2"}),
        rule("g", includes={"minKernel": "6.10"}),
        {"name": "h", "action": "SCMP_ACT_ALLOW"},
    )
    assert names(text) == ["b", "d", "e", "f", "h"]
    assert names(text, held=("SYS_ADMIN",)) == ["a", "d", "e", "f", "h"]


def test_the_rest_of_a_profile_is_kept() -> None:
    args = [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]
    text = profile(
        rule("a", args=args, errnoRet=38, comment="words"),
        archMap=[{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        defaultErrnoRet=1,
    )
    assert seccomp_document.converted(text, (), "6.1") == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "errnoRet": 38, "args": args}],
    }


@pytest.mark.parametrize(
    "text",
    ["{", "[]", profile("x"), profile(architectures=["a"], archMap=[{}]), profile(rule("a", includes=3))],
)  # fmt: skip
def test_what_is_no_profile_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        seccomp_document.converted(text, (), "6.1")


@pytest.mark.parametrize(
    ("asked", "is_there"), [("unconfined", False), ("", True), (profile(), True)]
)
def test_a_filter_unless_there_is_to_be_none(asked: str, *, is_there: bool) -> None:
    linux = built(powers=HostPowers(seccomp=asked))["linux"]
    assert ("seccomp" in linux) is is_there


@pytest.mark.parametrize(
    "reach",
    [{"powers": HostPowers()}, {"host_binds": (HostBind(source="/etc", target="/x"),)}],
)
def test_a_host_gives_itself_to_nobody_but_operators(reach: dict[str, Any]) -> None:
    spec = container_spec(**reach)
    power.check_owner(container_record(spec=spec, tenant=OPERATORS))
    power.check_owner(container_record(tenant="ann"))
    with pytest.raises(ForbiddenError, match="only operators"):
        power.check_owner(container_record(spec=spec, tenant="ann"))
