"""What a student's container may and may not do, seen from inside."""

import pytest
from tests.farm.fleet import Fleet
from tests.farm.tenant import Tenant


def test_root_inside_is_nobody_outside(fleet: Fleet) -> None:
    out = fleet.docker("run", "--rm", "busybox", "sh", "-c", "id -u; cat /proc/self/uid_map").out
    inside, mapping = out.splitlines()
    assert inside == "0"
    first, outside, count = mapping.split()
    assert (first, count) == ("0", "65536")
    assert int(outside) >= 1_000_000


def test_two_containers_have_different_outside_ids(fleet: Fleet) -> None:
    fleet.docker("run", "-d", "--name", "one", "busybox", "sleep", "60")
    fleet.docker("run", "-d", "--name", "two", "busybox", "sleep", "60")
    maps = {
        fleet.docker("exec", name, "cat", "/proc/self/uid_map").out.split()[1]
        for name in ("one", "two")
    }
    assert len(maps) == 2


def test_filters_masks_and_short_powers(fleet: Fleet) -> None:
    status = fleet.docker("run", "--rm", "busybox", "cat", "/proc/1/status").out
    facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert facts["Seccomp"].strip() == "2"
    effective = int(facts["CapEff"], 16)
    for number, name in ((21, "SYS_ADMIN"), (12, "NET_ADMIN"), (19, "SYS_PTRACE"), (16, "MODULE")):
        assert not effective >> number & 1, name


@pytest.mark.parametrize(
    "command",
    [
        "cat /proc/kcore",
        "echo 1 > /proc/sys/kernel/panic",
        "mount -t tmpfs none /mnt",
        "mknod /tmp/sda b 8 0",
        "echo b > /proc/sysrq-trigger",
        "chroot / unshare -U true",
        "hostname other",
    ],
)
def test_refused_inside(fleet: Fleet, command: str) -> None:
    done = fleet.docker("run", "--rm", "busybox", "sh", "-c", command, code=None)
    assert done.code != 0 or done.raw == b""
    assert done.err or command == "cat /proc/kcore"


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--privileged"], "HostConfig.Privileged"),
        (["--pid", "host"], "HostConfig.PidMode"),
        (["--network", "host"], "HostConfig.NetworkMode"),
        (["--ipc", "host"], "HostConfig.IpcMode"),
        (["--userns", "host"], "HostConfig.UsernsMode"),
        (["--device", "/dev/kvm"], "HostConfig.Devices"),
        (["--security-opt", "seccomp=unconfined"], "HostConfig.SecurityOpt"),
        (["--cap-add", "SYS_ADMIN"], "SYS_ADMIN"),
    ],
)
def test_a_forbidden_flag_is_refused_by_name(
    fleet: Fleet,  # noqa: ARG001 - empty again afterwards
    tenants: tuple[Tenant, Tenant],
    words: list[str],
    field: str,
) -> None:
    """To a tenant; `test_operators` has what operators may."""
    done = tenants[0].docker("run", "--rm", *words, "busybox", "true", code=None)
    assert done.code == 125
    assert field in done.err
    assert tenants[0].docker("ps", "-aq").out == ""
