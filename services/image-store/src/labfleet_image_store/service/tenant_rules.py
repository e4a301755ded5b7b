"""What holds for all that tenants read from the store and keep in it."""

from dataclasses import dataclass

from labfleet_image_store.service.quotas import Quotas
from labfleet_image_store.service.sharing import Sharing


@dataclass(frozen=True)
class TenantRules:
    """Which repositories of the operators' they read, and how much they may have."""

    sharing: Sharing
    quotas: Quotas
