"""Identifiers. Each is a `NewType`, so the checker refuses to swap one for another."""

from typing import NewType

TenantId = NewType("TenantId", str)
"""Owner of containers: `[a-z0-9][a-z0-9-]{0,38}`."""

HostId = NewType("HostId", str)
"""A lab server: `[a-z0-9][a-z0-9-]{0,38}`."""

ContainerId = NewType("ContainerId", str)
"""64 lower-case hex digits."""

NetworkId = NewType("NetworkId", str)
"""64 lower-case hex digits."""

ExecId = NewType("ExecId", str)
"""64 hex digits: the first 32 are those of its container, so any api replica finds the host."""

JobId = NewType("JobId", str)
"""32 lower-case hex digits."""

Digest = NewType("Digest", str)
"""`sha256:` and 64 lower-case hex digits (OCI image-spec)."""

OPERATORS = TenantId("operators")
"""The tenant behind the operator's local socket."""
