"""What a tenant may ask the kernel for: the allow-lists that api and agent share (`runtime.md`)."""

from collections.abc import Iterable

from labfleet_proto.errors import ForbiddenError

DEFAULT_CAPABILITIES = frozenset(
    "CHOWN DAC_OVERRIDE FOWNER FSETID KILL NET_BIND_SERVICE SETFCAP SETGID SETPCAP SETUID SYS_CHROOT".split()
)
GRANTABLE_CAPABILITIES = DEFAULT_CAPABILITIES | {"NET_RAW", "SYS_PTRACE"}
"""The last two are a teacher's choice."""

SYSCTLS_OF_A_NAMESPACE = ("kernel.msg", "kernel.sem", "kernel.shm", "fs.mqueue.", "net.")
"""Prefixes of settings that belong to the container's own namespaces (docker's list)."""


def capabilities(added: Iterable[str], dropped: Iterable[str]) -> tuple[str, ...]:
    """Return the names without `CAP_`, sorted.

    Added `ALL` means all that may be granted but what is dropped; else adding outdoes dropping (as docker).

    Raises ForbiddenError for a name outside the allow-list.
    """
    gone = {_plain(name) for name in dropped}
    more = {_plain(name) for name in added}
    if "ALL" in more:
        more = ((more | GRANTABLE_CAPABILITIES) - gone) - {"ALL"}
    for name in sorted(more - GRANTABLE_CAPABILITIES):
        raise ForbiddenError(
            f"HostConfig.CapAdd: {name} is not allowed; allowed are "
            + ", ".join(sorted(GRANTABLE_CAPABILITIES))
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
