"""Whose a token or certificate is, looked up in mirrors: no request waits for the store.

What is revoked is gone from the mirrors as soon as the store has acknowledged it to its watchers.
"""

import base64
import binascii
from dataclasses import dataclass

from labfleet_chassis.clock import Clock
from labfleet_chassis.mirror import Mirror
from labfleet_chassis.service import Chassis
from labfleet_proto import buckets, tenants
from labfleet_proto.ids import OPERATORS, TenantId
from labfleet_proto.tenants import CertificateRecord, Identity, TenantRecord, TokenRecord


@dataclass(frozen=True)
class Credentials:
    """Tenants and what proves to be one of them."""

    tenants: Mirror[TenantRecord]
    tokens: Mirror[TokenRecord]
    certificates: Mirror[CertificateRecord]
    clock: Clock

    @classmethod
    async def open(cls, chassis: Chassis) -> "Credentials":
        """Mirror the buckets."""
        return cls(
            await chassis.mirror(buckets.TENANTS),
            await chassis.mirror(buckets.TOKENS),
            await chassis.mirror(buckets.CERTIFICATES),
            chassis.clock,
        )

    def of_token(self, text: str) -> Identity | None:
        """Whose token it is; None if it is unknown, expired or revoked."""
        parts = tenants.split_token(text)
        record = self.tokens.get(parts[0]) if parts else None
        if parts is None or record is None:
            return None
        if not tenants.is_genuine(record, parts[1], self.clock.now_ns()):
            return None
        return self._identity(record)

    def of_token_id(self, token: str) -> Identity | None:
        """Whose token it was that something was made of; None if it is unknown, expired or revoked."""
        record = self.tokens.get(token)
        if record is None or tenants.is_over(record, self.clock.now_ns()):
            return None
        return self._identity(record)

    def of_certificate(self, fingerprint: str) -> Identity | None:
        """Whose certificate it is; None if it is unknown, expired or revoked."""
        record = self.certificates.get(fingerprint)
        if record is None or tenants.is_over(record, self.clock.now_ns()):
            return None
        return self._identity(record)

    def is_there(self, tenant: TenantId) -> bool:
        """Whether there is such a tenant, and it is to stay."""
        known = self.tenants.get(tenant)
        return tenant == OPERATORS or (known is not None and not known.is_leaving)

    def is_known(self, tenant: TenantId) -> bool:
        """Whether there is such a tenant, also one that leaves."""
        return tenant == OPERATORS or self.tenants.get(tenant) is not None

    def _identity(self, record: TokenRecord | CertificateRecord) -> Identity | None:
        if not self.is_there(record.tenant):
            return None
        scopes = frozenset(record.scopes)
        if isinstance(record, TokenRecord):
            return Identity(
                record.tenant, scopes, record.expires_at_ns, record.repositories, record.id
            )
        return Identity(record.tenant, scopes, record.expires_at_ns)


def split_authorization(header: str) -> tuple[str, str]:
    """User (empty for Bearer) and secret of an Authorization header; empty if there are none."""
    kind, _, value = header.partition(" ")
    if kind.lower() == "bearer":
        return "", value.strip()
    if kind.lower() == "basic":
        try:
            user, _, secret = base64.b64decode(value, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user, secret
    return "", ""
