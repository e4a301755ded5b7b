"""What a tenant may ask the kernel for: the allow-lists that api and agent share (`runtime.md`)."""

from collections.abc import Collection, Iterable

from labfleet_proto.errors import ForbiddenError, InvalidRequestError

DEFAULT_CAPABILITIES = frozenset(
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()
)
GRANTABLE_CAPABILITIES = DEFAULT_CAPABILITIES | {"NET_RAW", "SYS_PTRACE"}
"""The last two are a teacher's choice."""

KNOWN_CAPABILITIES = GRANTABLE_CAPABILITIES | frozenset(
    "AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE DAC_READ_SEARCH IPC_LOCK "
    "IPC_OWNER LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BROADCAST PERFMON "
    "SYS_ADMIN SYS_BOOT SYS_MODULE SYS_NICE SYS_PACCT SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG "
    "SYSLOG WAKE_ALARM".split()
)
"""capabilities(7)."""

SYSCTLS_OF_A_NAMESPACE = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "net.")
"""Prefixes of settings that belong to the container's own namespaces (docker's list)."""


def capabilities(
    added: Collection[str],
    dropped: Collection[str],
    grantable: frozenset[str] = GRANTABLE_CAPABILITIES,
) -> tuple[str, ...]:
    """Return the names without `CAP_`, sorted.

    Added `ALL` means all that may be granted but what is dropped; else adding outdoes dropping (as docker).

    Raises ForbiddenError for a name outside the allow-list, InvalidRequestError for none at all.
    """
    for field, names in (("CapAdd", added), ("CapDrop", dropped)):
        for name in names:
            if _plain(name) not in KNOWN_CAPABILITIES | {"ALL"}:
                raise InvalidRequestError(f'invalid {field}: unknown capability: "{name}"')
    gone = {_plain(name) for name in dropped}
    more = {_plain(name) for name in added}
    if "ALL" in more:
        more = ((more | grantable) - gone) - {"ALL"}
    for name in sorted(more - grantable):
        raise ForbiddenError(
            f"HostConfig.CapAdd: {name} is not allowed; allowed are " + ", ".join(sorted(grantable))
        )
    held = frozenset() if "ALL" in gone else DEFAULT_CAPABILITIES
    return tuple(sorted((held - gone) | more))


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def check_sysctls(names: Iterable[str]) -> None:
    """Raise ForbiddenError for a setting that is not a container's own."""
    for name in names:
        if not name.startswith(SYSCTLS_OF_A_NAMESPACE):
            raise ForbiddenError(
                f"HostConfig.Sysctls: {name} is not a setting of a container's own"
            )
