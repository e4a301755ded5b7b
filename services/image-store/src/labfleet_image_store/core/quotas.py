"""How much a tenant may keep in the store, and the sentence for one who wants more."""

from collections.abc import Collection
from dataclasses import dataclass

from labfleet_proto.errors import ForbiddenError
from labfleet_proto.ids import TenantId

_UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


class QuotaExceededError(ForbiddenError):
    """More than the tenant may keep; the message names the quota and the usage."""


@dataclass(frozen=True)
class Quota:
    """0 means that there is none."""

    stored_bytes: int = 0
    repositories: int = 0

    @property
    def is_set(self) -> bool:
        """Whether there is anything to hold to."""
        return bool(self.stored_bytes or self.repositories)


def too_much(tenant: TenantId, quota: Quota, stored_bytes: int, more_bytes: int) -> str | None:
    """Why `more_bytes` do not fit; None if they do. Nothing more always fits."""
    if not quota.stored_bytes or more_bytes <= 0:
        return None
    if stored_bytes + more_bytes <= quota.stored_bytes:
        return None
    return (
        f"quota of tenant {tenant} exceeded: its repositories may refer to {size(quota.stored_bytes)} "
        f"of blobs, each counted once; they refer to {size(stored_bytes)} and {size(more_bytes)} more "
        "are wanted: remove images, or ask the operators (labfleet tenant quota)"
    )


def too_many(
    tenant: TenantId, quota: Quota, repositories: Collection[str], wanted: str
) -> str | None:
    """Why there may not be one more repository; None if there may, or it is there."""
    if not quota.repositories or wanted in repositories or len(repositories) < quota.repositories:
        return None
    return (
        f"quota of tenant {tenant} exceeded: it may have {quota.repositories} repositories with images "
        f"and has {len(repositories)}: remove one, or ask the operators (labfleet tenant quota)"
    )


def size(count: int) -> str:
    """Bytes for people."""
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.4g} {name}"
    return f"{count} bytes"
