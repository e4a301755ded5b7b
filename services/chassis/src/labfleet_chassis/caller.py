"""For whom the work at hand is done: set once a request or job, seen by everything below it.

Tasks that a request starts are for the same tenant. A loop of a service works for nobody: it names
the tenant of each thing that it touches, or uses `acting_for`.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

from labfleet_proto.ids import TenantId

_TENANT: ContextVar[TenantId | None] = ContextVar("labfleet_tenant", default=None)

_IS_ADMIN: ContextVar[bool] = ContextVar("labfleet_is_admin", default=False)


def caller_tenant() -> TenantId:
    """The tenant whose request or job this is. Raises RuntimeError where nobody asked."""
    tenant = _TENANT.get()
    if tenant is None:
        raise RuntimeError("no tenant's request is being served here")
    return tenant


def caller_is_admin() -> bool:
    """Whether the caller is an operator whose credential has the scope `admin`; no where nobody asked."""
    return _IS_ADMIN.get()


@contextlib.contextmanager
def acting_for(tenant: TenantId, *, is_admin: bool = False) -> Iterator[None]:
    """Work for a tenant within the block."""
    token, admin = _TENANT.set(tenant), _IS_ADMIN.set(is_admin)
    try:
        yield
    finally:
        _TENANT.reset(token)
        _IS_ADMIN.reset(admin)
