"""For whom the work at hand is done: set once a request or job, seen by everything below it.

Tasks that a request starts are for the same tenant. A loop of a service works for nobody: it names
the tenant of each thing that it touches, or uses `acting_for`.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from labfleet_proto.ids import TenantId

_TENANT: ContextVar[TenantId | None] = ContextVar("labfleet_tenant", default=None)


def caller_tenant() -> TenantId:
    """The tenant whose request or job this is. Raises RuntimeError where nobody asked."""
    tenant = _TENANT.get()
    if tenant is None:
        raise RuntimeError("no tenant's request is being served here")
    return tenant


@contextlib.contextmanager
def acting_for(tenant: TenantId) -> Iterator[None]:
    """Work for a tenant within the block."""
    token = _TENANT.set(tenant)
    try:
        yield
    finally:
        _TENANT.reset(token)
