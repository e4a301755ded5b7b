"""The OCI document of a container: what it may do, and what it can never ask for."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.proto.records import limits
from tests.unit.runtime_agent.default_container import (
    GOLDEN,
    STUDENT,
    built,
    host_part,
    text_of,
)

from labfleet_proto.errors import ForbiddenError, InvalidRequestError
from labfleet_runtime_agent.core.spec import (
    DEFAULT_PATH,
    IDS_PER_CONTAINER,
    VolumeSource,
    working_dir,
)

EVERYTHING: dict[str, Any] = {
    "env": ("A=1",),
    "working_dir": "/srv",
    "labels": {"run.oci.handler": "krun"},
    "is_tty": True,
    "terminal_size": (24, 80),
    "is_rootfs_read_only": True,
    "with_init": True,
    "no_new_privileges": True,
    "cap_add": ("NET_RAW", "SYS_PTRACE"),
    "cap_drop": ("KILL",),
    "tmpfs": {"/run": "size=1m"},
    "sysctls": {"net.core.somaxconn": "128"},
    "domainname": "lab",
}
"""Every field of a spec that reaches the document."""


def mount_at(document: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [mount for mount in document["mounts"] if mount["destination"] == target]
    return dict(found)


def powers(document: dict[str, Any], kind: str) -> list[str]:
    return list(document["process"]["capabilities"].get(kind, []))


# -- the whole


def test_the_default_container_is_the_reviewed_one() -> None:
    assert text_of(built()) == GOLDEN.read_text(), (
        "what a container may do has changed: see default_container.py"
    )


@pytest.mark.parametrize("fields", [{}, EVERYTHING], ids=["default", "everything"])
def test_hooks_and_annotations_never_appear(fields: dict[str, Any]) -> None:
    assert not {"hooks", "annotations"} & set(built(**fields))


def test_a_container_without_command_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="No command specified"):
        built(command=())


# -- namespaces and ids


def test_every_namespace_is_the_containers_own() -> None:
    namespaces = {each["type"]: each.get("path") for each in built()["linux"]["namespaces"]}
    assert namespaces == {
        "pid": None,
        "ipc": None,
        "uts": None,
        "mount": None,
        "user": None,
        "cgroup": None,
        "network": "/run/netns/lf-c",
    }


def test_the_user_namespace_of_the_network_is_joined() -> None:
    document = built(host_part(joined={"user": "/proc/1/fd/9"}))
    assert {"type": "user", "path": "/proc/1/fd/9"} in document["linux"]["namespaces"]


@pytest.mark.parametrize("kind", ["uidMappings", "gidMappings"])
def test_root_inside_is_nobody_outside(kind: str) -> None:
    document = built(host_part(uid_base=2_000_000))
    assert document["linux"][kind] == [
        {"containerID": 0, "hostID": 2_000_000, "size": IDS_PER_CONTAINER}
    ]


def test_the_process_runs_as_who_was_looked_up() -> None:
    user = built(who=STUDENT)["process"]["user"]
    assert user == {"uid": 1000, "gid": 1000, "additionalGids": [1000, 10]}


# -- capabilities


@pytest.mark.parametrize("kind", ["bounding", "effective", "permitted"])
def test_root_holds_the_default_capabilities(kind: str) -> None:
    assert powers(built(), kind) == [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ]


@pytest.mark.parametrize("kind", ["effective", "permitted"])
def test_another_user_holds_none(kind: str) -> None:
    assert powers(built(who=STUDENT), kind) == []


def test_another_user_may_still_gain_the_default_ones_by_sudo() -> None:
    assert powers(built(who=STUDENT), "bounding") == powers(built(), "bounding")


@pytest.mark.parametrize("kind", ["inheritable", "ambient"])
def test_no_capability_is_inherited(kind: str) -> None:
    assert powers(built(cap_add=("ALL",)), kind) == []


def test_added_and_dropped_capabilities_reach_the_document() -> None:
    assert powers(built(cap_add=("NET_RAW",), cap_drop=("ALL",)), "bounding") == ["CAP_NET_RAW"]


def test_a_capability_outside_the_list_is_refused() -> None:
    with pytest.raises(ForbiddenError, match="SYS_ADMIN is not allowed"):
        built(cap_add=("SYS_ADMIN",))


@pytest.mark.parametrize("is_set", [True, False])
def test_new_privileges_are_refused_where_that_is_asked_for(*, is_set: bool) -> None:
    assert built(no_new_privileges=is_set)["process"]["noNewPrivileges"] is is_set


def test_a_debugger_runs_only_where_ptrace_was_granted() -> None:
    without, given_it = built(), built(cap_add=("SYS_PTRACE",))
    calls = [
        {name for rule in document["linux"]["seccomp"]["syscalls"] for name in rule["names"]}
        for document in (without, given_it)
    ]
    assert ["ptrace" in names for names in calls] == [False, True]


# -- what of /proc and /sys is hidden


@pytest.mark.parametrize(
    "path",
    [
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/proc/acpi",
        "/proc/scsi",
        "/proc/interrupts",
        "/proc/pressure",
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
        "/sys/fs/bpf",
        "/sys/kernel/debug",
    ],
)
def test_a_path_that_tells_of_the_host_is_masked(path: str) -> None:
    assert path in built()["linux"]["maskedPaths"]


@pytest.mark.parametrize(
    "path", ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
)
def test_a_path_that_changes_the_host_is_read_only(path: str) -> None:
    assert path in built()["linux"]["readonlyPaths"]


def test_sys_is_read_only() -> None:
    mount = mount_at(built(), "/sys")
    assert (mount["source"], "ro" in mount["options"]) == ("/run/labfleet/sys", True)


def test_sys_is_empty_and_read_only_where_the_kernel_gave_none() -> None:
    mount = mount_at(built(host_part(sysfs_path="")), "/sys")
    assert (mount["type"], "ro" in mount["options"]) == ("tmpfs", True)


# -- settings


def test_settings_of_its_own_namespaces_reach_the_document() -> None:
    """But for the network's: its namespace is the host's, and the network service sets them."""
    asked = {"net.core.somaxconn": "1", "kernel.shmmax": "2"}
    assert built(sysctls=asked)["linux"]["sysctl"] == {"kernel.shmmax": "2"}


def test_a_setting_of_the_host_is_refused() -> None:
    with pytest.raises(ForbiddenError, match=r"kernel\.core_pattern"):
        built(sysctls={"kernel.core_pattern": "|/bin/sh"})


# -- working directory


@pytest.mark.parametrize(
    "path",
    [
        "/proc",
        "/proc/",
        "/proc/self/fd/7",
        "//proc/self/cwd",
        "/./proc/self",
        "/usr/../proc/self",
        "/../proc",
        "/proc/self/fd/7/../../../..",
    ],
)
def test_a_working_directory_below_proc_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequestError, match="may not lie below /proc"):
        working_dir(path)


@pytest.mark.parametrize("path", ["/", "/srv/proc", "/process", "/srv/../home", "/a//b/"])
def test_any_other_absolute_directory_is_taken_as_it_is(path: str) -> None:
    assert built(working_dir=path)["process"]["cwd"] == path


def test_no_working_directory_is_the_root() -> None:
    assert working_dir("") == "/"


def test_a_relative_working_directory_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="needs to be an absolute path"):
        working_dir("srv")


# -- limits


@pytest.mark.parametrize(("asked", "hard", "given_it"), [(1000, 4096, 1000), (20_000, 4096, 4096)])
def test_open_files_never_exceed_the_agents_own_hard_limit(
    asked: int, hard: int, given_it: int
) -> None:
    document = built(host_part(hard_nofile=hard), limits=limits(nofile=asked))
    assert document["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "hard": given_it, "soft": given_it}
    ]


def test_shared_memory_has_a_size() -> None:
    assert "size=4096" in mount_at(built(limits=limits(shm_bytes=4096)), "/dev/shm")["options"]


def test_dev_has_a_size() -> None:
    assert "size=65536k" in mount_at(built(), "/dev")["options"]


# -- mounts


@pytest.mark.parametrize(
    ("given_it", "options"),
    [
        ("", ["nosuid", "nodev", "noexec"]),
        ("size=1m,mode=1777", ["nosuid", "nodev", "noexec", "size=1m", "mode=1777"]),
        ("exec,uid=5,gid=6", ["nosuid", "nodev", "exec", "uid=5", "gid=6"]),
        ("suid,dev,context=x,nr_inodes=0", ["nosuid", "nodev", "noexec"]),
        ("ro", ["nosuid", "nodev", "noexec", "ro"]),
    ],
)
def test_only_harmless_options_of_a_tmpfs_pass(given_it: str, options: list[str]) -> None:
    assert mount_at(built(tmpfs={"/run": given_it}), "/run")["options"] == options


@pytest.mark.parametrize(("is_read_only", "access"), [(True, "ro"), (False, "rw")])
def test_a_volume_is_bound_without_devices_and_set_ids(*, is_read_only: bool, access: str) -> None:
    volume = VolumeSource("/volumes/v", "/data", is_read_only)
    mount = mount_at(built(host_part(volumes=(volume,))), "/data")
    assert mount == {
        "destination": "/data",
        "type": "bind",
        "source": "/volumes/v",
        "options": ["rbind", "rprivate", "nosuid", "nodev", access],
    }


def test_no_mount_carries_devices_but_dev_itself() -> None:
    volume = VolumeSource("/volumes/v", "/data", is_read_only=False)
    mounts = built(host_part(volumes=(volume,), init_path="/usr/bin/tini"), **EVERYTHING)["mounts"]
    with_devices = [each["destination"] for each in mounts if "nodev" not in each["options"]]
    assert with_devices == ["/dev", "/dev/pts"]


def test_no_mount_carries_set_ids() -> None:
    mounts = built(**EVERYTHING)["mounts"]
    assert all("nosuid" in each["options"] for each in mounts)


def test_files_made_for_the_container_are_bound() -> None:
    assert mount_at(built(), "/etc/hosts")["source"] == "/var/lib/labfleet/c/hosts"


targets = st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(
    lambda parts: "/" + "/".join(parts)
)


@given(st.lists(targets, unique=True), st.lists(targets, unique=True))
def test_a_mount_comes_after_those_above_it(volumes: list[str], tmpfs: list[str]) -> None:
    sources = tuple(VolumeSource("/v", target, is_read_only=False) for target in volumes)
    document = built(host_part(volumes=sources), tmpfs=dict.fromkeys(tmpfs, ""))
    order = [mount["destination"] for mount in document["mounts"]]
    for place, target in enumerate(order):
        assert not any(target.startswith(f"{later}/") for later in order[place:])


@pytest.mark.parametrize("is_set", [True, False])
def test_the_root_is_read_only_where_that_is_asked_for(*, is_set: bool) -> None:
    assert built(is_rootfs_read_only=is_set)["root"]["readonly"] is is_set


# -- command and environment


def test_the_command_runs_as_given() -> None:
    document = built(entrypoint=("/entry",), command=("a", "b c"))
    assert document["process"]["args"] == ["/entry", "a", "b c"]


def test_an_init_reaps_for_the_command() -> None:
    document = built(host_part(init_path="/usr/bin/tini-static"), with_init=True)
    assert document["process"]["args"] == ["/sbin/docker-init", "--", "sh"]
    assert "ro" in mount_at(document, "/sbin/docker-init")["options"]


def test_a_host_without_init_runs_the_command_itself() -> None:
    document = built(with_init=True)
    assert document["process"]["args"] == ["sh"]
    assert "/sbin/docker-init" not in {mount["destination"] for mount in document["mounts"]}


def test_the_environment_gets_dockers_additions() -> None:
    assert built()["process"]["env"] == [f"PATH={DEFAULT_PATH}", "HOSTNAME=web", "HOME=/root"]


def test_a_terminal_has_a_type() -> None:
    assert "TERM=xterm" in built(is_tty=True)["process"]["env"]


def test_a_terminal_begins_with_its_size() -> None:
    sized = built(is_tty=True, terminal_size=(24, 80))["process"]
    assert sized["consoleSize"] == {"height": 24, "width": 80}
    for fields in ({"is_tty": False, "terminal_size": (24, 80)}, {"is_tty": True}):
        assert "consoleSize" not in built(**fields)["process"]


def test_what_the_user_set_is_not_set_again() -> None:
    mine = ("PATH=/bin", "HOSTNAME=mine", "TERM=vt100", "HOME=/srv")
    assert built(env=mine, is_tty=True)["process"]["env"] == list(mine)


def test_a_name_without_value_is_left_out() -> None:
    assert built(env=("HOME", "EMPTY="))["process"]["env"] == [
        f"PATH={DEFAULT_PATH}",
        "HOSTNAME=web",
        "EMPTY=",
    ]
