"""What a tenant may ask the kernel for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labfleet_proto.errors import ForbiddenError
from labfleet_proto.privileges import (
    DEFAULT_CAPABILITIES,
    GRANTABLE_CAPABILITIES,
    capabilities,
    check_sysctls,
)

DEFAULT = tuple(sorted(DEFAULT_CAPABILITIES))
GRANTABLE = tuple(sorted(GRANTABLE_CAPABILITIES))


def without(names: tuple[str, ...], *gone: str) -> tuple[str, ...]:
    return tuple(name for name in names if name not in gone)


def test_the_default_is_enough_for_a_student_and_no_more() -> None:
    assert " ".join(capabilities((), ())) == (
        "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
    )


@pytest.mark.parametrize(
    ("added", "dropped", "held"),
    [
        (["NET_RAW"], [], tuple(sorted((*DEFAULT, "NET_RAW")))),
        (["cap_net_raw"], [], tuple(sorted((*DEFAULT, "NET_RAW")))),
        (["CHOWN"], [], DEFAULT),
        ([], ["CHOWN"], without(DEFAULT, "CHOWN")),
        ([], ["CAP_KILL", "chown"], without(DEFAULT, "CHOWN", "KILL")),
        ([], ["ALL"], ()),
        (["KILL"], ["ALL"], ("KILL",)),
        (["ALL"], [], GRANTABLE),
        (["ALL"], ["ALL"], GRANTABLE),
        (["ALL"], ["NET_RAW", "CAP_CHOWN"], without(GRANTABLE, "NET_RAW", "CHOWN")),
        (["CHOWN"], ["CHOWN"], DEFAULT),
    ],
)
def test_capabilities_are_added_and_dropped_as_docker_does(
    added: list[str], dropped: list[str], held: tuple[str, ...]
) -> None:
    assert capabilities(added, dropped) == held


@pytest.mark.parametrize("name", ["SYS_ADMIN", "CAP_SYS_MODULE", "net_admin"])
def test_a_capability_outside_the_list_is_refused_by_name(name: str) -> None:
    plain = name.upper().removeprefix("CAP_")
    with pytest.raises(ForbiddenError, match=rf"HostConfig.CapAdd: {plain} is not allowed"):
        capabilities([name], ["ALL"])


def test_all_does_not_let_a_forbidden_one_in() -> None:
    with pytest.raises(ForbiddenError, match="SYS_ADMIN"):
        capabilities(["ALL", "SYS_ADMIN"], [])


names = st.lists(st.sampled_from([*GRANTABLE, "ALL", "SYS_ADMIN", "cap_kill"]), max_size=5)


@given(names, names)
def test_nothing_outside_the_list_is_ever_held(added: list[str], dropped: list[str]) -> None:
    try:
        held = capabilities(added, dropped)
    except ForbiddenError:
        return
    assert set(held) <= GRANTABLE_CAPABILITIES


@pytest.mark.parametrize(
    "name",
    ["net.ipv4.ip_forward", "kernel.shmmax", "kernel.msgmnb", "kernel.sem", "fs.mqueue.msg_max"],
)
def test_a_setting_of_the_containers_own_namespaces_is_allowed(name: str) -> None:
    check_sysctls([name])


@pytest.mark.parametrize("name", ["kernel.core_pattern", "vm.overcommit_memory", "fs.file-max", ""])
def test_a_setting_of_the_host_is_refused_by_name(name: str) -> None:
    with pytest.raises(ForbiddenError, match=f"HostConfig.Sysctls: {name} is not"):
        check_sysctls(["net.core.somaxconn", name])
