"""The system calls of a student's container."""

from typing import Any

import pytest

from labfleet_runtime_agent.core.seccomp import profile

ALLOW, REFUSE = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
ENOSYS, EPERM = 38, 1
CLONE_NEWUSER = 0x10000000


def rules_of(call: str, *, with_ptrace: bool = False) -> list[dict[str, Any]]:
    rules = profile(with_ptrace=with_ptrace)["syscalls"]
    return [rule for rule in rules if call in rule["names"]]


def accepted(call: str) -> list[int]:
    """Values of the first argument with which a call is allowed."""
    return [each["value"] for rule in rules_of(call) for each in rule["args"]]


def test_a_call_that_is_not_listed_is_refused() -> None:
    made = profile()
    assert (made["defaultAction"], made["defaultErrnoRet"]) == (REFUSE, EPERM)


def test_calls_of_32_bit_programs_are_not_spoken() -> None:
    assert profile()["architectures"] == ["SCMP_ARCH_X86_64"]


@pytest.mark.parametrize(
    "call",
    (
        "bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register keyctl add_key "
        "request_key mount umount2 move_mount open_tree fsopen fsconfig fsmount mount_setattr pivot_root setns "
        "unshare init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff "
        "open_by_handle_at iopl ioperm ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd syslog acct "
        "settimeofday clock_settime sethostname setdomainname quotactl lookup_dcookie vhangup nfsservctl "
        "fanotify_init"
    ).split(),
)
def test_a_dangerous_call_is_in_no_rule(call: str) -> None:
    assert rules_of(call) == []


@pytest.mark.parametrize(
    "call", "read write openat execve mmap futex getrandom accept4 statx".split()
)
def test_a_call_of_every_program_is_allowed_without_condition(call: str) -> None:
    (rule,) = rules_of(call)
    assert (rule["action"], "args" in rule) == (ALLOW, False)


@pytest.mark.parametrize("call", ["ptrace", "process_vm_readv", "process_vm_writev", "kcmp"])
def test_a_debuggers_call_is_allowed_with_ptrace(call: str) -> None:
    assert [rule["action"] for rule in rules_of(call, with_ptrace=True)] == [ALLOW]


def test_sockets_are_of_four_families() -> None:
    unix, inet, inet6, netlink = 1, 2, 10, 16
    assert accepted("socket") == [unix, inet, inet6, netlink]


def test_clone_makes_no_namespaces() -> None:
    (rule,) = rules_of("clone")
    (condition,) = rule["args"]
    assert condition["op"] == "SCMP_CMP_MASKED_EQ"
    assert condition["valueTwo"] == 0


@pytest.mark.parametrize(
    "flag",
    [0x20000, 0x2000000, 0x4000000, 0x8000000, CLONE_NEWUSER, 0x20000000, 0x40000000],
    ids=["mount", "cgroup", "uts", "ipc", "user", "pid", "net"],
)
def test_every_namespace_flag_of_clone_is_looked_at(flag: int) -> None:
    (rule,) = rules_of("clone")
    assert rule["args"][0]["value"] & flag


def test_clone3_is_unknown_so_that_libraries_fall_back() -> None:
    (rule,) = rules_of("clone3")
    assert (rule["action"], rule["errnoRet"]) == (REFUSE, ENOSYS)


def test_personality_cannot_turn_address_randomisation_off() -> None:
    no_randomize = 0x0040000
    assert not any(value & no_randomize for value in accepted("personality") if value != 0xFFFFFFFF)


def test_no_call_is_named_twice_in_a_rule() -> None:
    assert all(len(set(rule["names"])) == len(rule["names"]) for rule in profile()["syscalls"])
